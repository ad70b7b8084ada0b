"""A page to explore: curves, components, heads and examples, linked, in one file that works offline."""
