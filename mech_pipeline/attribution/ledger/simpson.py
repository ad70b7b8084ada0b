"""Simpson's rule along the straight path of one update, with gradients at nodes that finer panels use again."""

import torch

from mech_pipeline.attribution.ledger.bisection import GradientAt
from mech_pipeline.training.loop import Update
from mech_pipeline.training.update.optimizer import Vector

RELATIVE_ERROR, ABSOLUTE_ERROR = 2e-6, 1e-7
"""Accepted error of one update: relative to its own change of M, plus what float32 gradients resolve (unit of M)."""
_MOST_PANELS, _SLOW = 64, 1 / 4
"""Most panels, and how much of the error a doubling may leave: a sixteenth where M is smooth, a half at a kink."""
_KEPT = 8
"""Nodes at multiples of 1/8 are kept for finer panels; more would be more memory than time is worth for a rare update."""


def accepted(change: float) -> float:
    """Error of an update that is left alone, given its change of M."""
    return RELATIVE_ERROR * abs(change) + ABSOLUTE_ERROR


class Path:
    """One update, ḡ along it as well as it is known, and how much of M's change that explains.

    Args:
        begin, end: ∇M before and after the update.

    Attributes:
        average: ḡ, at first by one panel: one gradient in the middle.
        explained: ⟨ḡ, θ' − θ⟩ in double precision.
    """

    def __init__(self, gradient_at: GradientAt, made: Update, begin: Vector, end: Vector) -> None:
        self.made, self.begin, self.end = made, begin, end
        self._gradient_at, self._inside = gradient_at, dict[float, Vector]()
        self.average = self._simpson(1)
        self.explained = self.explained_by(self.average)

    def explained_by(self, average: Vector) -> float:
        """⟨average, θ' − θ⟩."""
        moved = self.made.after.theta.double() - self.made.before.theta.double()
        return float(average.double() @ moved)

    def improve(self, average: Vector, explained: float) -> None:
        """Takes a better ḡ."""
        self.average, self.explained = average, explained

    def bend(self) -> float:
        """|p₀ − 2 p_½ + p₁| of p_u = ⟨∇M(θ + u(θ' − θ)), θ' − θ⟩: three times what the middle adds to the trapezoid."""
        step = self.made.after.theta - self.made.before.theta
        begin, middle, end = torch.stack([at @ step for at in (self.begin, self._node(0.5), self.end)]).tolist()
        return abs(begin - 2 * middle + end)

    def refine(self, change: float) -> None:
        """The best of 1, 2, 4, … panels; gives up when two doublings in a row gain little.

        Args:
            change: of M, true.
        """
        error = best = abs(self.explained - change)
        panels, stalled = 1, 0
        while best > accepted(change) and panels < _MOST_PANELS and stalled < 2:
            panels *= 2
            finer = self._simpson(panels)
            explained = self.explained_by(finer)
            finer_error = abs(explained - change)
            stalled = stalled + 1 if finer_error > error * _SLOW else 0
            if finer_error < best:
                self.improve(finer, explained)
                best = finer_error
            error = finer_error

    def _simpson(self, panels: int) -> Vector:
        """Composite Simpson's rule on 2 · panels + 1 nodes; error of order panels⁻⁴."""
        total = self.begin + self.end
        for node in range(1, 2 * panels):
            total = total + (4 if node % 2 else 2) * self._node(node / (2 * panels))
        return total / (6 * panels)

    def _node(self, u: float) -> Vector:
        if u in self._inside:
            return self._inside[u]
        start, step = self.made.before.theta, self.made.after.theta - self.made.before.theta
        gradient = self._gradient_at(start + step * u)
        if (u * _KEPT).is_integer():
            self._inside[u] = gradient
        return gradient
