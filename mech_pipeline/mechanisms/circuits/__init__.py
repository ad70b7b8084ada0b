"""Circuits: which edges between components carry a mechanism. No Dagster here."""
