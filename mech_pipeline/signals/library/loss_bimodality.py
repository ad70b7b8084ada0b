"""Sarle's coefficient of the sample's losses, (skewness² + 1) / kurtosis: two kinds of examples.

1/3 of a normal distribution, 5/9 of a uniform one, up to 1 of two points.
"""

import math

from mech_pipeline.signals.moment import Moment
from mech_pipeline.signals.signal import Signal


def coefficient(at: Moment) -> float:
    """NaN where all losses are the same."""
    apart = at.losses - at.losses.mean()
    variance = float((apart**2).mean())
    if variance <= 1e-30:
        return math.nan
    skewness, kurtosis = float((apart**3).mean()) / variance**1.5, float((apart**4).mean()) / variance**2
    return (skewness**2 + 1) / kurtosis


SIGNAL = Signal(
    coefficient, "1", "bimodality coefficient of the sample's losses", "SAS 1990 (Sarle); Pfister et al. 2013"
)
