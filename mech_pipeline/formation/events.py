"""Formation: a value crosses an absolute threshold and stays across it.

Never "a share of its own maximum", which manufactures leads. A run that does not form is censored, not dropped: its
lower bound (the last evaluation) is information for survival statistics. The step is known only to lie between two
evaluations, so both are kept.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Formation:
    """When a value formed.

    Attributes:
        step: first evaluation across the threshold that was sustained; none if censored.
        lower: the crossing is later than this: the evaluation before `step`, or the last one if censored; −1 if the
            first evaluation was across already.
    """

    step: int | None
    lower: int

    @property
    def censored(self) -> bool:
        """Whether it did not form within the run."""
        return self.step is None


def formation_step(
    steps: Sequence[int],
    values: Sequence[float],
    threshold: float,
    sustain: int,
    between: Mapping[int, float] = {},
    after: int = 0,
) -> Formation:
    """First of `sustain` consecutive evaluations at or above the threshold.

    Args:
        between: values at steps in between, evaluated because the value moved there. They narrow the crossing down, but
            do not count for `sustain`, which would mean less where evaluations are denser.
        after: evaluations before this step do not count. What is across then already forms at the first that does.

    >>> formation_step([0, 10, 20, 30, 40], [0.0, 2.0, 1.0, 2.0, 2.0], threshold=1.5, sustain=2)
    Formation(step=30, lower=20)
    >>> formation_step([0, 10, 20], [0.0, 2.0, 2.0], threshold=1.5, sustain=2, between={3: 1.6, 6: 1.2, 8: 1.7})
    Formation(step=8, lower=6)
    >>> formation_step([0, 10, 20, 30, 40], [2.0, 2.0, 0.0, 0.0, 2.0], threshold=1.5, sustain=1, after=20)
    Formation(step=40, lower=30)
    >>> formation_step([0, 10, 20], [0.0, 0.0, 2.0], threshold=1.5, sustain=2).censored
    True

    Raises:
        ValueError: no evaluations, or steps that do not rise.
    """
    if not steps or list(steps) != sorted(set(steps)):
        raise ValueError("formation needs evaluations at rising steps")
    run = 0
    for index, (step, value) in enumerate(zip(steps, values, strict=True)):
        run = run + 1 if value >= threshold and step >= after else 0
        if run == sustain:
            first = index - sustain + 1
            inside = {at: found for at, found in between.items() if at >= after}
            return _narrowed(steps[first], steps[first - 1] if first else -1, threshold, inside)
    return Formation(None, steps[-1])


def _narrowed(step: int, lower: int, threshold: float, between: Mapping[int, float]) -> Formation:
    """The last crossing among the evaluations between `lower` and `step`."""
    for inside in sorted((s for s in between if lower < s < step), reverse=True):
        if between[inside] < threshold:
            return Formation(step, inside)
        step = inside
    return Formation(step, lower)
