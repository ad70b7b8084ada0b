"""tr Σ / ‖g‖²: how much examples disagree, against what they agree on. In examples; the batch beyond which more helps little.

Both are unbiased for n examples: tr Σ from their spread, ‖g‖² less the part that spread alone would give.
"""

import math

from mech_pipeline.signals.moment import Moment
from mech_pipeline.signals.signal import Signal


def log_noise_scale(at: Moment) -> float:
    """Its logarithm; NaN where the mean gradient is not told from 0."""
    count = len(at.gram)
    squares, of_mean = float(at.gram.diagonal().mean()), float(at.gram.mean())
    spread = (squares - of_mean) * count / (count - 1)
    signal = of_mean - spread / count
    return math.log(spread / signal) if signal > 0 and spread > 0 else math.nan


SIGNAL = Signal(
    log_noise_scale, "log examples", "log of the simple gradient noise scale", "McCandlish et al. 2018, §2.2"
)
