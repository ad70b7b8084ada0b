"""Atoms of neighbouring windows that are the same: linked where they choose the same examples, in tracks with a birth and a death.

Windows of training see other examples, so members themselves rarely meet. An atom is a direction, though, and can choose among the
examples of the window before or after as well. Two atoms a and b of neighbouring windows share

    S(a, b) = Σ_w |T_w(a) ∩ T_w(b)|,   and overlap by   J = S / (4 n − S)        (Jaccard)

w: the two windows, T_w(a): the n rows of window w furthest along a. Half of what each chooses it has never seen, so what is
chance in one window does not overlap with the next. Random choices share Σ_w n²/N_w examples (hypergeometric); atoms are linked
where they share more than that by `BEYOND` standard deviations, one to one (Hungarian): J ≥ .16 for 24 of 320 examples. The
largest J of three thousand random directions and atoms of the demo was .13.
A track that lives through one window alone was not found again.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.stats import hypergeom

from mech_pipeline.discovery.atoms import Found, top

BEYOND = 5.0
"""Standard deviations."""


@dataclass(frozen=True)
class Link:
    """Two atoms of neighbouring windows that are one: their places, and how far they overlap (J)."""

    before: int
    after: int
    overlap: float


@dataclass(frozen=True)
class Track:
    """An atom over windows.

    Attributes:
        atoms: (window, place among its atoms), in the order of windows.
        birth, peak, death: windows: the first, the most coherent, the last.
    """

    atoms: tuple[tuple[int, int], ...]
    birth: int
    peak: int
    death: int


def links(before: Found, after: Found) -> list[Link]:
    """The atoms of a window that go on in the next."""
    if not before.atoms or not after.atoms:
        return []
    size = len(before.atoms[0].members)
    shared = _shared(before, after, size)
    enough = least_shared([len(before.rows), len(after.rows)], size)
    return [
        Link(int(one), int(other), float(count / (4 * size - count)))
        for one, other in zip(*linear_sum_assignment(-shared), strict=True)
        if (count := shared[one, other]) >= enough
    ]


def least_shared(examples: Sequence[int], size: int) -> float:
    """How many examples two choices must share to be linked: `BEYOND` standard deviations more than random ones do.

    Args:
        examples: of each window.
        size: of each choice.

    >>> round(least_shared([320, 320], 24), 1)
    12.4
    """
    chance = [hypergeom(count, size, size) for count in examples]
    return float(sum(one.mean() for one in chance) + BEYOND * sum(one.var() for one in chance) ** 0.5)


def _shared(before: Found, after: Found, size: int) -> Int[NDArray, "before after"]:
    """S of every atom of a window and every atom of the next."""
    shared = np.zeros((len(before.atoms), len(after.atoms)), dtype=np.int64)
    for found in (before, after):
        mine, theirs = (_chosen(found.rows, each, size) for each in (before, after))
        shared += mine @ theirs.T
    return shared


def _chosen(rows: Float[NDArray, "example sketch"], by: Found, size: int) -> Int[NDArray, "atom example"]:
    """1 where an atom chooses an example."""
    chosen = np.zeros((len(by.atoms), len(rows)), dtype=np.int64)
    for place, atom in enumerate(by.atoms):
        chosen[place, top(rows, atom.direction, size)] = 1
    return chosen


def tracks(coherences: Sequence[Sequence[float]], linked: Sequence[Sequence[Link]]) -> list[Track]:
    """Tracks in the order of their births.

    Args:
        coherences: of the atoms of each window.
        linked: of each window and the next.
    """
    chains: list[list[tuple[int, int]]] = []
    before: dict[int, list[tuple[int, int]]] = {}
    for window, atoms in enumerate(coherences):
        came = {link.after: before[link.before] for link in linked[window - 1]} if window else {}
        fresh: dict[int, list[tuple[int, int]]] = {place: [] for place in range(len(atoms)) if place not in came}
        chains += fresh.values()
        before = came | fresh
        for place, chain in before.items():
            chain.append((window, place))
    return [_track(chain, coherences) for chain in chains]


def _track(chain: list[tuple[int, int]], coherences: Sequence[Sequence[float]]) -> Track:
    peak, _ = max(chain, key=lambda at: coherences[at[0]][at[1]])
    return Track(tuple(chain), chain[0][0], peak, chain[-1][0])
