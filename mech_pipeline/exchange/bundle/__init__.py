"""Bundles: an experiment as a folder that others can read without this package, and bring back into a store."""
