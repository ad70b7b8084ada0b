"""Other examples, each like one that was chosen: nearest neighbours without replacement, and how well they are balanced.

Sources: Rosenbaum & Rubin 1985 (matched sampling); Stuart 2010, Matching methods for causal inference (standardised mean
differences at or below 0.1 are called balanced).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mech_pipeline.causal.choosing import Examples, Numbers
from mech_pipeline.errors import MechError

BALANCED = 0.1
"""Largest standardised mean difference of matched sets that is called balanced."""


@dataclass(frozen=True)
class Balance:
    """One characteristic of the chosen examples and of those matched to them.

    Attributes:
        difference: (mean of the chosen − mean of the matched) / pooled standard deviation; 0: alike.
        before: the same difference to all examples that could be matched.
    """

    name: str
    chosen: float
    matched: float
    difference: float
    before: float

    @property
    def is_balanced(self) -> bool:
        """Whether the sets are alike in it."""
        return abs(self.difference) <= BALANCED


def matched_examples(
    chosen: Examples,
    candidates: Examples,
    groups: NDArray[np.int64],
    characteristics: Mapping[str, Numbers],
    generator: np.random.Generator,
) -> Examples:
    """For each chosen example another one of its group, the nearest that is left, in a random order of the chosen.

    Distance is Euclidean, every characteristic divided by its standard deviation over the candidates.

    Args:
        candidates: that may be taken; chosen ones among them are not.
        groups: of every example of the pool; only members of one group are matched.
        characteristics: of every example of the pool.

    Raises:
        MechError: a group has too few other examples.
    """
    left = np.setdiff1d(candidates, chosen)
    matched = np.empty_like(chosen)
    if len(left) < len(chosen):
        raise _too_few(len(chosen), len(left))
    points = _standardised(characteristics, left, len(groups))
    for group in np.unique(groups[chosen]):
        mine, others = np.flatnonzero(groups[chosen] == group), left[groups[left] == group]
        if len(others) < len(mine):
            raise _too_few(len(mine), len(others))
        order = generator.permutation(mine)
        matched[order] = _nearest(points[chosen[order]], points[others], others)
    return matched


def _too_few(wanted: int, others: int) -> MechError:
    return MechError(
        f"{wanted} examples of one kind are to be matched, and only {others} others of it can be taken",
        "choose fewer, leave `kind` out of `alike`, or name a later `at`",
    )


def _standardised(characteristics: Mapping[str, Numbers], among: Examples, count: int) -> NDArray[np.float64]:
    """[example, characteristic]; one that is the same for all counts nothing."""
    columns = [np.zeros(count)]
    for values in characteristics.values():
        spread = float(values[among].std())
        columns.append((values - values[among].mean()) / spread if spread > 0 else np.zeros(count))
    return np.stack(columns, axis=1)


def _nearest(wanted: NDArray[np.float64], points: NDArray[np.float64], names: Examples) -> Examples:
    """The nearest point to each that nobody before it took."""
    from scipy.spatial import KDTree

    tree, taken = KDTree(points), np.zeros(len(points), dtype=bool)
    found = np.empty(len(wanted), dtype=np.int64)
    for i, point in enumerate(wanted):
        near = 8
        while True:
            places = np.atleast_1d(tree.query(point, k=min(near, len(points)))[1])
            free = places[~taken[places]]
            if len(free):
                break
            near *= 4
        taken[free[0]] = True
        found[i] = names[free[0]]
    return found


def balance(
    chosen: Examples, matched: Examples, candidates: Examples, characteristics: Mapping[str, Numbers]
) -> list[Balance]:
    """How alike two sets are, one entry for each characteristic.

    >>> values = {"loss": np.array([1.0, 3.0, 1.0, 3.0, 9.0])}
    >>> [b.difference for b in balance(np.array([0, 1]), np.array([2, 3]), np.arange(5), values)]
    [0.0]
    """
    others = np.setdiff1d(candidates, chosen)
    return [
        Balance(
            name,
            float(values[chosen].mean()),
            float(values[matched].mean()),
            _difference(values[chosen], values[matched]),
            _difference(values[chosen], values[others]),
        )
        for name, values in characteristics.items()
    ]


def _difference(some: Numbers, others: Numbers) -> float:
    """Standardised mean difference; 0 between sets without any spread and difference."""
    gap = float(some.mean() - others.mean())
    spread = float(np.sqrt((some.var() + others.var()) / 2))
    return gap / spread if spread > 0 else (0.0 if gap == 0 else float(np.sign(gap)) * float("inf"))
