"""ḡ = ∫₀¹ ∇M(θ + u(θ' − θ)) du of every update of a window, by Simpson's rule, refined where that is not enough.

One panel (ends and middle) is exact where M is a polynomial of degree 4 or less along the step, and enough for
ordinary training. Steps that are large for M's curvature (high learning rates, memorising models) are seen because
⟨ḡ, θ' − θ⟩ must equal M(θ') − M(θ), whatever the path; they get 2, 4, … panels until it does, or until float32
gradients give no more (`simpson.py`). What kinks of M leave is bisected (`bisection.py`).

Cost per update: two gradients (its end is the begin of the next, also of the next window), and some values of M.
Memory: ḡ of all updates, and three gradients each of the eight that are looked at together.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mech_pipeline.attribution.ledger.bisection import GradientAt, Point, ValueAt, bisected
from mech_pipeline.attribution.ledger.simpson import ABSOLUTE_ERROR, Path, accepted
from mech_pipeline.training.loop import Update
from mech_pipeline.training.update.optimizer import Vector

_BISECTED_ABOVE = 2.5
"""Bisection begins at so many accepted errors: less is rounding, of which it makes nothing, and all windows balance."""
_HOPELESS = 100.0
_TOGETHER = 8
"""Most updates whose explained change is compared with M's in one: M is then known after every eighth."""
_MISSED_TOGETHER, _BENT = ABSOLUTE_ERROR / 5, 1000 * ABSOLUTE_ERROR
"""What they may miss in all, and how much ∇M may bend along each (`Path.bend`): errors that cancel must not hide.
Of the demo's 800 updates 40 miss their change by more than is accepted, and these limits find the 40, from 0.4 values
of M an update (docs/log.md)."""


@dataclass(frozen=True)
class Place:
    """A state where two windows meet: ∇M, and M if it was asked for."""

    gradient: Vector
    value: float | None = None


@dataclass(frozen=True)
class Averages:
    """What is known of M along a window.

    Attributes:
        gradients: ḡ of every update.
        explained: ⟨ḡ, θ' − θ⟩ of every update, in double precision.
        begin: the state before the first update: the end of the window before.
        change: of M over the window, true; none: it was not asked for.
    """

    gradients: list[Vector]
    explained: list[float]
    begin: Place
    change: float | None


def path_averages(
    gradient_at: GradientAt, updates: Sequence[Update], value_at: ValueAt | None = None, end: Place | None = None
) -> Averages:
    """ḡ of every update; with `value_at`, refined until they explain M's change.

    Args:
        end: the state after the last update, if it is known.
    """
    begin = gradient = gradient_at(updates[0].before.theta)
    checks = None if value_at is None else _Checks(gradient_at, value_at, updates, end)
    averages, explained = list[Vector](), list[float]()
    for first in range(0, len(updates), _TOGETHER):
        paths = []
        for made in updates[first : first + _TOGETHER]:
            known = end.gradient if end is not None and made is updates[-1] else None
            paths.append(Path(gradient_at, made, gradient, gradient_at(made.after.theta) if known is None else known))
            gradient = paths[-1].end
        if checks is not None:
            checks.settle(paths, first)
        averages += [path.average for path in paths]
        explained += [path.explained for path in paths]
    if checks is None:
        return Averages(averages, explained, Place(begin), None)
    return Averages(averages, explained, Place(begin, checks.value(0)), checks.change(0, len(updates)))


class _Checks:
    """Holds what a window's averages explain against M itself, whose values are computed when first asked for."""

    def __init__(
        self, gradient_at: GradientAt, value_at: ValueAt, updates: Sequence[Update], end: Place | None
    ) -> None:
        self._gradient_at, self._value_at = gradient_at, value_at
        self._states = [updates[0].before, *(made.after for made in updates)]
        self._values: dict[int, float] = {}
        if end is not None and end.value is not None:
            self._values[len(updates)] = end.value
        self._hopeless = False

    def value(self, index: int) -> float:
        """M after so many updates of the window."""
        if index not in self._values:
            self._values[index] = self._value_at(self._states[index].theta)
        return self._values[index]

    def change(self, first: int, last: int) -> float:
        """M's true change between two states."""
        return self.value(last) - self.value(first)

    def settle(self, paths: Sequence[Path], first: int) -> None:
        """Refines those of neighbouring updates that miss M's change.

        Together they are good if they miss it by far less than one of them may, and none bends much; else each half is
        looked at.
        """
        if len(paths) == 1:
            self._settle_one(paths[0], first)
            return
        error = abs(sum(path.explained for path in paths) - self.change(first, first + len(paths)))
        if error > _MISSED_TOGETHER or any(path.bend() > _BENT for path in paths):
            half = len(paths) // 2
            self.settle(paths[:half], first)
            self.settle(paths[half:], first + half)

    def _settle_one(self, path: Path, index: int) -> None:
        change = self.change(index, index + 1)
        path.refine(change)
        error, allowed = abs(path.explained - change), _BISECTED_ABOVE * accepted(change)
        if error <= allowed or self._hopeless:
            return
        begin, end = Point(0.0, path.begin, self.value(index)), Point(1.0, path.end, self.value(index + 1))
        finer = bisected(self._gradient_at, self._value_at, path.made, begin, end, allowed)
        explained = path.explained_by(finer)
        left = abs(explained - change)
        if left < error:
            path.improve(finer, explained)
        self._hopeless = left > _HOPELESS * allowed  # the gradient is not M's: no update is worth the time
