"""Token scores on a grid, so that they are stored in 1.4 bytes instead of 3.8.

Scores of single tokens are differences of large sums, and nobody reads more than two digits of one. Each example's scores
are rounded to multiples of a power of two, about 1/64 of their root mean square. Rounding the running sum instead of
each score keeps the total: it is off by half a grid step at most, a single token by one step.
(Fixed-point in a float32 column: its low bytes are zero, and byte-stream-split zstd leaves them out.)
"""

import numpy as np
from jaxtyping import Float

STEPS_PER_RMS = 64


def on_grid(scores: Float[np.ndarray, "example token"]) -> Float[np.ndarray, "example token"]:
    """The scores as float32 multiples of 2^⌊log₂(rms / 64)⌋, example by example; zeros stay zeros.

    >>> on_grid(np.array([[1.0, -1.0, 0.26]])).tolist()
    [[1.0, -1.0, 0.2578125]]
    """
    scores = scores.astype(np.float64)
    rms = np.sqrt((scores**2).mean(axis=1, keepdims=True))
    step = np.where(rms > 0, np.exp2(np.floor(np.log2(np.where(rms > 0, rms, 1) / STEPS_PER_RMS))), 1)
    running = np.round(np.cumsum(scores, axis=1) / step)
    return (np.diff(running, axis=1, prepend=0) * step).astype(np.float32)
