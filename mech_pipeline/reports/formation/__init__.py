"""Curves over training, and when mechanisms formed."""
