"""Neurons, and what made them."""
