"""Gradients that the optimizer does not expect: the largest over components of log mean g² against log mean v.

0: as before. Abstains where a checkpoint has no second moment, or nothing has been trained yet.
"""

import math

import torch

from mech_pipeline.signals.moment import Moment
from mech_pipeline.signals.signal import Signal


def anomaly(at: Moment) -> float:
    """From the mean gradient of the sample and the stored second moment."""
    if at.second_moment is None:
        return math.nan
    count = int(at.component_index.max()) + 1
    squares, expected = (
        torch.zeros(count, dtype=torch.float64).index_add(0, at.component_index.cpu(), values.double().cpu())
        for values in (at.mean_gradient**2, at.second_moment)
    )
    there = (squares > 0) & (expected > 0)
    return float((squares[there] / expected[there]).log().max()) if there.any() else math.nan


SIGNAL = Signal(
    anomaly, "log ratio", "largest excess of squared gradients over the second moment", "Adam's own estimate"
)
