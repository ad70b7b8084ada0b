"""Scores of single attention heads and of pairs of them."""
