"""What really happens without some examples."""
