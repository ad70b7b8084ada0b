"""What happened: exact accounts of a window of training."""
