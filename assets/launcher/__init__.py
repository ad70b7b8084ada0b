"""`mech run` and `mech zoom`: worker processes, and Dagster runs in them."""
