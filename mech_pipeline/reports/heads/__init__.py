"""Which heads are of which kind, and since when."""
