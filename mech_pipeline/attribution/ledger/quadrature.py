"""ḡ = ∫₀¹ ∇M(θ + u(θ' − θ)) du along one update, by Simpson's rule, refined where that is not enough.

One panel (ends and middle) is exact where M is a polynomial of degree 4 or less along the step, and enough for
ordinary training. Steps that are large for M's curvature (high learning rates, memorising models) are seen because
⟨ḡ, θ' − θ⟩ must equal M(θ') − M(θ), whatever the path; they get 2, 4, … panels until it does, or until float32
gradients give no more.
"""

from collections.abc import Callable, Sequence

from mech_pipeline.training.loop import Update
from mech_pipeline.training.update.optimizer import State, Vector

GradientAt = Callable[[Vector], Vector]
"""θ → ∇M(θ)."""
ValueAt = Callable[[State], float]
"""state → M(θ), in double precision."""

RELATIVE_ERROR, ABSOLUTE_ERROR = 2e-6, 1e-7
"""Accepted error of one update: relative to its own change of M, plus what float32 gradients resolve (unit of M)."""
_MOST_PANELS = 64


def path_averages(gradient_at: GradientAt, updates: Sequence[Update], value_at: ValueAt | None = None) -> list[Vector]:
    """ḡ of every update; with `value_at`, refined until each explains its own change of M."""
    end = gradient_at(updates[0].before.theta)
    averages = []
    for made in updates:
        begin, end = end, gradient_at(made.after.theta)
        average = simpson(gradient_at, made, begin, end, panels=1)
        if value_at is not None:
            change = value_at(made.after) - value_at(made.before)
            average = _refined(gradient_at, made, begin, end, average, change)
        averages.append(average)
    return averages


def simpson(gradient_at: GradientAt, made: Update, begin: Vector, end: Vector, panels: int) -> Vector:
    """Composite Simpson's rule with 2 · panels − 1 gradients between the given ends; error of order panels⁻⁴."""
    start, step = made.before.theta, made.after.theta - made.before.theta
    total = begin + end
    for node in range(1, 2 * panels):
        total = total + (4 if node % 2 else 2) * gradient_at(start + step * (node / (2 * panels)))
    return total / (6 * panels)


def _refined(
    gradient_at: GradientAt, made: Update, begin: Vector, end: Vector, average: Vector, change: float
) -> Vector:
    """The best of 1, 2, 4, … panels; gives up when two doublings in a row gain nothing: what is left is rounding."""
    error = best = _error(average, made, change)
    panels, stalled = 1, 0
    while best > RELATIVE_ERROR * abs(change) + ABSOLUTE_ERROR and panels < _MOST_PANELS and stalled < 2:
        panels *= 2
        finer = simpson(gradient_at, made, begin, end, panels)
        finer_error = _error(finer, made, change)
        stalled = stalled + 1 if finer_error > error / 2 else 0
        if finer_error < best:
            average, best = finer, finer_error
        error = finer_error
    return average


def _error(average: Vector, made: Update, change: float) -> float:
    moved = made.after.theta.double() - made.before.theta.double()
    return abs(float(average.double() @ moved) - change)
