"""What is lost without a path or a neuron."""
