"""Mean loss of the worst twentieth of the sample's examples: a cheap look at what the model does not expect."""

from mech_pipeline.signals.moment import Moment
from mech_pipeline.signals.signal import Signal


def worst(at: Moment) -> float:
    """Mean of the largest 5 % of losses."""
    return float(at.losses.topk(max(1, len(at.losses) // 20)).values.mean())


SIGNAL = Signal(worst, "nats", "mean loss of the worst 5 % of a sample", "the tail of the loss", baseline=True)
