"""Influence at target steps: the exact sweep, the cheap estimators, their rows."""
