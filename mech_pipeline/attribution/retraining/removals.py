"""Which examples are left out when a run is trained again.

    random-<fraction>-<number>              a random share of the examples seen, without replacement
    top-<fraction>-<method>-<mechanism>     the share without which the mechanism is predicted to fall most
    matched-<fraction>-<method>-<mechanism> at random, but as many of every kind of example as the top has
    none                                    nothing: the baseline

A random set depends on nothing but the examples seen, its share, its number and a seed: asking for more sets adds to
those that are there, and runs that saw the same examples leave out the same.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mech_pipeline.spec.analysis import Influence
from mech_pipeline.spec.seeds import numpy_generator

BASELINE = "none"


@dataclass(frozen=True)
class Removal:
    """One retraining that is asked for.

    Attributes:
        fraction: share of the examples seen.
        number: of a random set; none for others.
        target: (mechanism, method) whose influence chooses; none for random sets.
        matched: not the top itself, but a random set like it.
    """

    name: str
    fraction: float
    number: int | None = None
    target: tuple[str, str] | None = None
    matched: bool = False


def asked_removals(influence: Influence) -> list[Removal]:
    """What is retrained at a target step, the baseline first; nothing if no removal is asked for."""
    asked = influence.retraining
    if asked is None or not influence.mechanisms or not (asked.fractions or asked.top):
        return []
    top = [
        Removal(
            f"{kind}-{fraction:g}-{method}-{mechanism}", fraction, target=(mechanism, method), matched=kind == "matched"
        )
        for kind in (("top", "matched") if asked.matched else ("top",))
        for fraction in asked.top
        for method in influence.methods
        for mechanism in influence.mechanisms
    ]
    drawn = [
        Removal(f"random-{fraction:g}-{number}", fraction, number=number)
        for fraction in asked.fractions
        for number in range(asked.subsets)
    ]
    return [Removal(BASELINE, 0.0), *top, *drawn]


def random_removal(seen: NDArray[np.int64], fraction: float, number: int, seed: int) -> NDArray[np.int64]:
    """The `number`-th random set of a share of the examples seen, sorted.

    >>> random_removal(np.arange(40), 0.1, 7, seed=0).tolist() == random_removal(np.arange(40), 0.1, 7, seed=0).tolist()
    True
    >>> len(random_removal(np.arange(40), 0.1, 7, seed=0))
    4
    """
    generator = numpy_generator(seed, f"removal:{fraction!r}:{number}")
    return np.sort(generator.choice(seen, size=removal_size(len(seen), fraction), replace=False))


def top_removal(seen: NDArray[np.int64], influence: NDArray[np.float64], fraction: float) -> NDArray[np.int64]:
    """The share of the examples seen that has the most positive influence, sorted; ties go to the first in the pool.

    Args:
        influence: of every example of the pool, times the weight it has.

    >>> top_removal(np.array([1, 2, 3]), np.array([9.0, 1.0, 3.0, 2.0]), 0.34).tolist()
    [2]
    """
    order = np.argsort(-influence[seen], kind="stable")
    return np.sort(seen[order[: removal_size(len(seen), fraction)]])


def matched_removal(
    seen: NDArray[np.int64], top: NDArray[np.int64], kind: NDArray[np.integer], name: str, seed: int
) -> NDArray[np.int64]:
    """A random set of the examples seen, none of them in the top, with as many of every kind as the top has, sorted.

    Where a kind has too few others, all of those.

    Args:
        kind: of every example of the pool, as a number.
        name: of the removal; it decides what is drawn, with the seed.

    >>> kind = np.array([0, 0, 0, 1, 1, 1])
    >>> kind[matched_removal(np.arange(6), np.array([0, 3, 4]), kind, "matched", seed=0)].tolist()
    [0, 1]
    """
    generator = numpy_generator(seed, f"removal:{name}")
    others = np.setdiff1d(seen, top)
    drawn = []
    for each, wanted in zip(*np.unique(kind[top], return_counts=True), strict=True):
        alike = others[kind[others] == each]
        drawn.append(generator.choice(alike, size=min(int(wanted), len(alike)), replace=False))
    return np.sort(np.concatenate(drawn))


def removal_size(seen: int, fraction: float) -> int:
    """Examples in a share of those seen: at least one, never all of them.

    >>> removal_size(1000, 0.005), removal_size(10, 0.005), removal_size(10, 0.999)
    (5, 1, 9)
    """
    return min(max(1, round(fraction * seen)), max(1, seen - 1))
