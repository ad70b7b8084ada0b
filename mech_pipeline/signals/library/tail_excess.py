"""How far the worst examples are behind: mean loss of the worst twentieth of the sample over the median loss, minus 1.

It grows where the many are learned and a few are left over, and falls when those are learned too; a loss that all examples
share leaves it alone.
"""

import math

from mech_pipeline.signals.moment import Moment
from mech_pipeline.signals.signal import Signal


def excess(at: Moment) -> float:
    """NaN where half of the examples have no loss at all."""
    middle = float(at.losses.median())
    return float(at.losses.topk(max(1, len(at.losses) // 20)).values.mean()) / middle - 1 if middle > 0 else math.nan


SIGNAL = Signal(
    excess, "share", "excess of the worst 5 % of losses over the median", "Toneva et al. 2019: forgotten examples"
)
