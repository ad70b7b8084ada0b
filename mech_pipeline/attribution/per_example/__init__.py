"""Gradients of single examples along given directions, by component, token or position."""
