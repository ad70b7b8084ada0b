"""What is to be seen in checkpoints: mechanisms, heads, gradients, circuits, neurons, formation."""
