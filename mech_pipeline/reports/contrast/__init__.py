"""Which data: the examples at both ends of an account against all, and whether seeds agree."""
