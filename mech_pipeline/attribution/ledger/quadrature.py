"""ḡ = ∫₀¹ ∇M(θ + u(θ' − θ)) du along one update, by Simpson's rule, refined where that is not enough.

One panel (ends and middle) is exact where M is a polynomial of degree 4 or less along the step, and enough for
ordinary training. Steps that are large for M's curvature (high learning rates, memorising models) are seen because
⟨ḡ, θ' − θ⟩ must equal M(θ') − M(θ), whatever the path; they get 2, 4, … panels until it does, or until float32
gradients give no more.

Where M has kinks (ReLU, a maximum) more panels gain little, because the gradient jumps and the error falls like
1/panels. What those leave is bisected: every piece of the path has a true change of M of its own, and only pieces that
miss theirs are halved, down to the kinks. Cost of that: a gradient and two values for each halving, some tens for
an update of a small ReLU model.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mech_pipeline.training.loop import Update
from mech_pipeline.training.update.optimizer import Vector

GradientAt = Callable[[Vector], Vector]
"""θ → ∇M(θ)."""
ValueAt = Callable[[Vector], float]
"""θ → M(θ), in double precision."""

RELATIVE_ERROR, ABSOLUTE_ERROR = 2e-6, 1e-7
"""Accepted error of one update: relative to its own change of M, plus what float32 gradients resolve (unit of M)."""
_MOST_PANELS, _SLOW = 64, 1 / 4
"""Most panels, and how much of the error a doubling may leave: a sixteenth where M is smooth, a half at a kink."""
_BISECTED_ABOVE = 2.5
"""Bisection begins at so many accepted errors: less is rounding, of which it makes nothing, and all windows balance."""
_PIECE = 1 / 16
"""Accepted error of one piece, as a share of the update's: the errors of some tens of pieces have both signs."""
_NARROWEST, _MOST_HALVINGS, _HOPELESS = 2.0**-20, 600, 100.0


def path_averages(gradient_at: GradientAt, updates: Sequence[Update], value_at: ValueAt | None = None) -> list[Vector]:
    """ḡ of every update; with `value_at`, refined until each explains its own change of M."""
    first = updates[0].before.theta
    end = gradient_at(first)
    value = 0.0 if value_at is None else value_at(first)
    averages, hopeless = [], False
    for made in updates:
        begin, end = end, gradient_at(made.after.theta)
        average = simpson(gradient_at, made, begin, end, panels=1)
        if value_at is not None:
            before, value = value, value_at(made.after.theta)
            average, error = _refined(gradient_at, made, begin, end, average, value - before)
            allowed = _BISECTED_ABOVE * _accepted(value - before)
            if error > allowed and not hopeless:
                path = _Path(gradient_at, value_at, made)
                points = _Point(0.0, begin, before), path.point(0.5), _Point(1.0, end, value)
                finer = path.integral(*points, allowed * _PIECE).to(average.dtype)
                left = _error(finer, made, value - before)
                average = finer if left < error else average
                hopeless = left > _HOPELESS * allowed  # the gradient is not M's: no update is worth the time
        averages.append(average)
    return averages


def simpson(gradient_at: GradientAt, made: Update, begin: Vector, end: Vector, panels: int) -> Vector:
    """Composite Simpson's rule with 2 · panels − 1 gradients between the given ends; error of order panels⁻⁴."""
    start, step = made.before.theta, made.after.theta - made.before.theta
    total = begin + end
    for node in range(1, 2 * panels):
        total = total + (4 if node % 2 else 2) * gradient_at(start + step * (node / (2 * panels)))
    return total / (6 * panels)


def _accepted(change: float) -> float:
    return RELATIVE_ERROR * abs(change) + ABSOLUTE_ERROR


def _refined(
    gradient_at: GradientAt, made: Update, begin: Vector, end: Vector, average: Vector, change: float
) -> tuple[Vector, float]:
    """The best of 1, 2, 4, … panels and its error; gives up when two doublings in a row gain little."""
    error = best = _error(average, made, change)
    panels, stalled = 1, 0
    while best > _accepted(change) and panels < _MOST_PANELS and stalled < 2:
        panels *= 2
        finer = simpson(gradient_at, made, begin, end, panels)
        finer_error = _error(finer, made, change)
        stalled = stalled + 1 if finer_error > error * _SLOW else 0
        if finer_error < best:
            average, best = finer, finer_error
        error = finer_error
    return average, best


def _error(average: Vector, made: Update, change: float) -> float:
    moved = made.after.theta.double() - made.before.theta.double()
    return abs(float(average.double() @ moved) - change)


@dataclass(frozen=True)
class _Point:
    """A place u of a path, with ∇M and M there."""

    u: float
    gradient: Vector
    value: float


class _Path:
    """The straight line of one update, and how often a piece of it may still be halved."""

    def __init__(self, gradient_at: GradientAt, value_at: ValueAt, made: Update) -> None:
        self._gradient_at, self._value_at = gradient_at, value_at
        self._precision = made.before.theta.dtype
        self._start = made.before.theta.double()
        self.step = made.after.theta.double() - self._start
        self.halvings = _MOST_HALVINGS

    def point(self, u: float) -> _Point:
        theta = self._start + u * self.step
        return _Point(u, self._gradient_at(theta.to(self._precision)), self._value_at(theta))

    def integral(self, begin: _Point, middle: _Point, end: _Point, allowed: float) -> Vector:
        """∫ ∇M du between two points, in float64, halved until M's change is met to `allowed`."""
        width = end.u - begin.u
        found = (begin.gradient.double() + 4 * middle.gradient.double() + end.gradient.double()) * (width / 6)
        error = abs(float(found @ self.step) - (end.value - begin.value))
        if error <= allowed or width < _NARROWEST or self.halvings <= 0:
            return found
        self.halvings -= 1
        left, right = self.point((begin.u + middle.u) / 2), self.point((middle.u + end.u) / 2)
        return self.integral(begin, left, middle, allowed) + self.integral(middle, right, end, allowed)
