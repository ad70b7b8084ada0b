"""When a prediction may be called reliable: the limits that every verdict on influence uses."""

METASMOOTH_LIMIT = 0.9
"""What the measured pairs of metasmoothness and LDS support: 0.66 went with 0.39, 0.72 with 0.55, 0.81 with 0.71 (and an
interval down to 0.34), 0.90 with 0.88, 0.97 with 0.94 (docs/method.md, Reliability)."""
FEWEST_REMOVALS = 16
"""Random removals of one size from which on retraining decides. With fewer, the interval of a score is so wide that a good
prediction often fails: eight removals at 0.9 give a lower end near 0.5."""
