"""Circuits: areas, drift, graphs over steps."""
