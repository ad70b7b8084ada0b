"""Every table, described once."""
