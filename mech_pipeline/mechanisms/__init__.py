"""What is watched: mechanisms (differentiable numbers of the model) and detectors (scores per attention head)."""
