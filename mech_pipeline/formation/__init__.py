"""When mechanisms form, and for which runs they never do."""
