"""What would happen: sums of influence, with its reliability."""
