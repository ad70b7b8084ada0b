"""Is something being learned that only the worst examples need: how much more they gained than the median example.

Of the twentieth of the sample that was worst at the checkpoint before, the mean fall of the loss, minus the median fall of
all. Examples that nothing can predict stay where they are, and where all are alike all gain alike: about 0 for both. Above 0
where what was unpredictable begins to be predicted.
"""

import math

from mech_pipeline.signals.moment import Moment
from mech_pipeline.signals.signal import Signal


def gained(at: Moment) -> float:
    """Nats a token; abstains at the first checkpoint."""
    earlier = at.losses_before
    if earlier is None:
        return math.nan
    falls = earlier - at.losses
    worst = earlier.topk(max(1, len(earlier) // 20)).indices
    return float(falls[worst].mean() - falls.median())


SIGNAL = Signal(
    gained,
    "nats",
    "what the worst 5 % of examples gained beyond the median one",
    "after POLCA: changes of loss by example",
)
