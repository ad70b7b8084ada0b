"""Arms against each other: when each formed, by how much it shifted, and what influence had predicted."""
