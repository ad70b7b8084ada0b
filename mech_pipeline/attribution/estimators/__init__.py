"""Cheaper and older ways to the scores of `attribution.influence`, in the same meaning and unit."""
