"""Accounts of windows: which are missing, their rows, their checks."""
