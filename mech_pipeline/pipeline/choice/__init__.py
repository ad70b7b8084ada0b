"""Which examples a run treats otherwise, by what was measured of other runs."""
