"""Does the order of two batches matter: ‖θ after A then B − θ after B then A‖, by the lengths of both steps and of θ.

Plain gradient steps of one hundredth of ‖θ‖ along the gradients of two halves of the sample. To first order in the steps
it is ‖H_A g_B − H_B g_A‖ / (‖g_A‖ ‖g_B‖), in relative units.
"""

import math

from mech_pipeline.signals.moment import GRADIENTS, Moment
from mech_pipeline.signals.signal import Signal

_RELATIVE = 0.01


def log_commutator(at: Moment) -> float:
    """Its logarithm; NaN where a gradient is 0."""
    halves = slice(0, GRADIENTS // 2), slice(GRADIENTS // 2, GRADIENTS)
    here = [at.gradient_at(at.theta, half) for half in halves]
    rates = [float(_RELATIVE * at.theta.norm() / gradient.norm()) if gradient.any() else 0.0 for gradient in here]
    if not all(rates):
        return math.nan
    moved = [at.theta - rate * gradient for rate, gradient in zip(rates, here, strict=True)]
    first = moved[0] - rates[1] * at.gradient_at(moved[0], halves[1])
    second = moved[1] - rates[0] * at.gradient_at(moved[1], halves[0])
    apart = float((first.double() - second.double()).norm()) / float(_RELATIVE**2 * at.theta.double().norm())
    return math.log(apart) if apart > 0 else math.nan


SIGNAL = Signal(
    log_commutator, "log", "log of how much the order of two steps matters", "arXiv 2602.16746, commutator defect"
)
