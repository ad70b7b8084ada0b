"""What is lost without a path or a neuron, and what can be had with a direction added."""
