"""Results that leave and enter: bundles, states on demand, and whether a run was made as it says."""
