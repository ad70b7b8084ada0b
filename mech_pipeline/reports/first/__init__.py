"""What a reader sees first: when, which head, which data, how sure; a number each, and the curve beside them."""
