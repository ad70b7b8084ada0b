"""Removals that are retrained, and how well influence predicted them."""
