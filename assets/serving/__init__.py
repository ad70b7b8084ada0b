"""`mech ui`: Dagster's web UI with the reports beside it, its daemon and its code server, without their noise."""
