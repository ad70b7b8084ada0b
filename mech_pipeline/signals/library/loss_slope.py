"""How much the sample's loss fell since the checkpoint before; abstains at the first."""

import math

from mech_pipeline.signals.moment import Moment
from mech_pipeline.signals.signal import Signal


def fall(at: Moment) -> float:
    """L(θ of the checkpoint before) − L(θ)."""
    return math.nan if at.before is None else at.loss_at(at.before) - float(at.losses.mean())


SIGNAL = Signal(fall, "nats", "fall of the sample's loss since the checkpoint before", "the loss curve", baseline=True)
