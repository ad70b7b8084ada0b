"""How few examples the last displacement served: 1 − participation of the example's parts of the fall in loss.

Example i's part is −⟨∇ℓ_i, Δθ⟩, the ledger's first order, taken of a sample. 0: all gained alike; near 1: a few did.
"""

import math

from mech_pipeline.signals.moment import Moment
from mech_pipeline.signals.signal import Signal
from mech_pipeline.signals.spectrum import participation_ratio


def concentration(at: Moment) -> float:
    """Abstains at the first checkpoint."""
    if at.displacement is None:
        return math.nan
    parts = (at.gradients @ at.displacement).double().abs()
    return 1 - participation_ratio(parts) / len(parts)


SIGNAL = Signal(concentration, "share", "how few examples the last displacement served", "the ledger, first order")
