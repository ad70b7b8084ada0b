"""Do a few examples gain while most do not: skewness of the falls of the sample's losses since the checkpoint before.

0: as many gain more than the mean as less; large: a few gain much. Two kinds of examples, a share p of which gains alone:
(1 − 2p) / √(p (1 − p)).
"""

import math

from mech_pipeline.signals.moment import Moment
from mech_pipeline.signals.signal import Signal


def skewness(at: Moment) -> float:
    """Abstains at the first checkpoint, and where all gain the same."""
    earlier = at.losses_before
    if earlier is None:
        return math.nan
    apart = (earlier - at.losses) - (earlier - at.losses).mean()
    variance = float((apart**2).mean())
    return float((apart**3).mean()) / variance**1.5 if variance > 1e-30 else math.nan


SIGNAL = Signal(skewness, "1", "skewness of what examples gained", "after POLCA: changes of loss by example")
