"""Does the gradient still point where training went: cosine of −∇L and the displacement since the checkpoint before."""

import math

from torch.nn.functional import cosine_similarity

from mech_pipeline.signals.moment import Moment
from mech_pipeline.signals.signal import Signal


def alignment(at: Moment) -> float:
    """1: straight on; 0: it turned. Abstains at the first checkpoint."""
    moved = at.displacement
    return math.nan if moved is None else float(cosine_similarity(-at.mean_gradient.double(), moved.double(), dim=0))


SIGNAL = Signal(
    alignment, "cosine", "cosine of the descent direction and the last displacement", "consecutive gradients"
)
