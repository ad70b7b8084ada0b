"""Which test files begin first: the longest, as measured, so that all processes of pytest-xdist end together."""

SLOWEST = ()
"""Files under tests/, the longest first; others follow in the order of their names."""

INDEPENDENT = frozenset()
"""Files whose tests share nothing: pytest-xdist may give them to several processes."""
