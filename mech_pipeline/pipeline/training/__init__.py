"""Checkpoints, metrics and batches of a run: what is missing, and how it is published while training goes on."""
