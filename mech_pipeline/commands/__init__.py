"""The `mech` command."""
