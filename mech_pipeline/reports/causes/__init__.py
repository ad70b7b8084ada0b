"""What was done to the data, and what came of it."""
