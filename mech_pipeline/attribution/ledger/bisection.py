"""∫ ∇M du along one update where Simpson's panels leave something: bisection, down to the kinks of M.

Where M has kinks (ReLU, a maximum) more panels gain little, because the gradient jumps and the error falls like
1/panels. Every piece of the path has a true change of M of its own, and only pieces that miss theirs are halved.
Cost: a gradient and two values for each halving, some tens for an update of a small ReLU model.
"""

from collections.abc import Callable
from dataclasses import dataclass

from mech_pipeline.training.loop import Update
from mech_pipeline.training.update.optimizer import Vector

GradientAt = Callable[[Vector], Vector]
"""θ → ∇M(θ)."""
ValueAt = Callable[[Vector], float]
"""θ → M(θ), in double precision."""
_PIECE = 1 / 16
"""Accepted error of one piece, as a share of the update's: the errors of some tens of pieces have both signs."""
_NARROWEST, _MOST_HALVINGS = 2.0**-20, 600


@dataclass(frozen=True)
class Point:
    """A place u of a path, with ∇M and M there."""

    u: float
    gradient: Vector
    value: float


def bisected(
    gradient_at: GradientAt, value_at: ValueAt, made: Update, begin: Point, end: Point, allowed: float
) -> Vector:
    """ḡ of an update in its own precision.

    Args:
        begin, end: at 0 and 1.
        allowed: error of the whole update.
    """
    pieces = _Pieces(gradient_at, value_at, made)
    return pieces.integral(begin, pieces.point(0.5), end, allowed * _PIECE).to(made.before.theta.dtype)


class _Pieces:
    """The straight line of one update, and how often a piece of it may still be halved."""

    def __init__(self, gradient_at: GradientAt, value_at: ValueAt, made: Update) -> None:
        self._gradient_at, self._value_at = gradient_at, value_at
        self._precision = made.before.theta.dtype
        self._start = made.before.theta.double()
        self._step = made.after.theta.double() - self._start
        self._halvings = _MOST_HALVINGS

    def point(self, u: float) -> Point:
        theta = self._start + u * self._step
        return Point(u, self._gradient_at(theta.to(self._precision)), self._value_at(theta))

    def integral(self, begin: Point, middle: Point, end: Point, allowed: float) -> Vector:
        """∫ ∇M du between two points, in float64, halved until M's change is met to `allowed`."""
        width = end.u - begin.u
        found = (begin.gradient.double() + 4 * middle.gradient.double() + end.gradient.double()) * (width / 6)
        error = abs(float(found @ self._step) - (end.value - begin.value))
        if error <= allowed or width < _NARROWEST or self._halvings <= 0:
            return found
        self._halvings -= 1
        left, right = self.point((begin.u + middle.u) / 2), self.point((middle.u + end.u) / 2)
        return self.integral(begin, left, middle, allowed) + self.integral(middle, right, end, allowed)
