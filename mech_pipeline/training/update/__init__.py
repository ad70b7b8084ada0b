"""One update of the weights as a pure function of a state."""
