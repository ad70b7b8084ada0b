"""Tasks with their prompts, answers and detectors."""
