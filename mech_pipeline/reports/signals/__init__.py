"""How well signals announced a behaviour on runs that nobody had looked at."""
