"""Dagster assets, one module per group. Thin: inputs in, one call into the research package, events out."""
