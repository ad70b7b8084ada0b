"""Many processes, many runs: sharing work without changing bits."""
