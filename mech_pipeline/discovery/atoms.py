"""Atoms of applied updates: groups of examples that moved the weights alike in a window, found without asking about anything.

Rows are what each example did to the weights (`update_rows.py`), divided by their length, their mean subtracted (what all do is
no group), divided by their length again: the angular kernel. An atom is one end of a principal direction of these rows, and its
members are the `size` rows that point furthest that way. A direction counts where it carries more of the rows than the first
direction does of rows that have nothing in common (each number permuted over examples: parallel analysis, Horn 1965).

Why principal directions: rows of a language model are nearly orthogonal (in the demo 320 rows spread over 230 directions, the
first of which carries 1 %), so nothing is dense. HDBSCAN called most rows noise or one cluster, sparse codes (scikit-learn's
DictionaryLearning) gave atoms of one to five examples, and ICA or varimax of the same directions agreed no better with the next
window (docs/log.md#discovery).

An atom's coherence is the mean cosine between the raw gradients of its members, which no metric has touched and which are
sketched by other signs than what the members were chosen by. It is held against random groups of as many examples of the window.
That the members were chosen for being alike remains: whether an atom is more than chance is for the next window to say, whose
examples are others (`tracks.py`).
Source: Gradient Atoms (2026) and angular kernels of gradients, there at one checkpoint with EK-FAC's metric.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy.linalg import eigh
from threadpoolctl import threadpool_limits

from mech_pipeline.errors import MechError

_PERMUTED, _GROUPS = 3, 200
FEWEST = 3
"""Times as many examples as an atom has, at least, must be in a window."""


class NoAtoms(MechError):
    """A window that can have no atoms: it has too few examples, or nothing moved in it."""


@dataclass(frozen=True)
class Atom:
    """Examples that moved the weights alike.

    Attributes:
        direction: unit vector among sketches; rows of other windows can be held against it.
        members: places among the window's rows, furthest along the direction first.
        along: cosine of each member with the direction.
        share: of the rows' variance that the direction carries, both its ends together.
        coherence: mean cosine between raw gradients of members.
        by_chance: the same of random groups: mean.
        by_chance_most: the largest of 200.
    """

    direction: Float[NDArray, " sketch"]
    members: Int[NDArray, " member"]
    along: Float[NDArray, " member"]
    share: float
    coherence: float
    by_chance: float
    by_chance_most: float

    @property
    def is_coherent(self) -> bool:
        """Whether the members' raw gradients agree more than those of every random group."""
        return self.coherence > self.by_chance_most


@dataclass(frozen=True)
class Found:
    """The atoms of a window.

    Attributes:
        rows: the window's rows, angular.
        atoms: both ends of each direction that counts, most carrying first.
        first: share of the variance that the first direction carries.
        first_by_chance: the largest such share of rows with nothing in common.
    """

    rows: Float[NDArray, "example sketch"]
    atoms: tuple[Atom, ...]
    first: float
    first_by_chance: float


def angular(rows: Float[NDArray, "example sketch"]) -> Float[NDArray, "example sketch"]:
    """Rows of length one around their mean; a row of zeros stays one.

    >>> angular(np.array([[3.0, 0.0], [0.0, 1.0]])).round(3).tolist()
    [[0.707, -0.707], [-0.707, 0.707]]
    """
    units = _units(rows)
    return _units(units - units.mean(0))


def coherence(rows: Float[NDArray, "example sketch"]) -> float:
    """Mean cosine between pairs of rows. 1: all point the same way; about 0: nothing in common.

    >>> coherence(np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]])) # of three pairs one agrees
    0.3333333333333333
    """
    units = _units(rows)
    count, total = len(units), units.sum(0)
    return float((total @ total - np.square(units).sum()) / (count * (count - 1)))


def atoms(
    applied: Float[NDArray, "example sketch"],
    raw: Float[NDArray, "example sketch"],
    most: int,
    size: int,
    generator: np.random.Generator,
) -> Found:
    """The atoms of a window.

    Args:
        applied, raw: see `update_rows.WindowRows`.
        most: directions, at most.
        size: members of an atom.
        generator: permutes rows and draws random groups.

    Raises:
        NoAtoms: too few examples, or none of them moved anything.
        MechError: a number is none.
    """
    check(applied, raw, size)
    rows = angular(applied.astype(np.float64))
    with threadpool_limits(1):
        shares, directions = _principal(rows, most)
        chance = max(_first_share(generator.permuted(rows, axis=0)) for _ in range(_PERMUTED))
    drawn = [coherence(raw[generator.choice(len(raw), size, replace=False)]) for _ in range(_GROUPS)]
    found = []
    for share, direction in zip(shares, directions, strict=True):
        if share > chance:
            ends = (_atom(rows, raw, end, float(share), size, drawn) for end in (direction, -direction))
            found += sorted(ends, key=lambda atom: -atom.coherence)
    return Found(rows, tuple(found), float(shares[0]), chance)


def check(applied: Float[NDArray, "example sketch"], raw: Float[NDArray, "example sketch"], size: int) -> None:
    """Whether atoms can be looked for.

    Raises:
        NoAtoms, MechError: see `atoms`.
    """
    if len(applied) < FEWEST * size:
        raise NoAtoms(
            f"{len(applied)} examples are too few for atoms of {size}",
            f"plan checkpoints further apart, or lower discovery.atom_examples to {len(applied) // FEWEST} or less",
        )
    bad = ~(np.isfinite(applied).all(1) & np.isfinite(raw).all(1))
    if bad.any():
        raise MechError(f"the gradients of {int(bad.sum())} examples are no numbers", "look at training's loss")
    if not applied.any():
        raise NoAtoms("no example moved any weight", "look at the learning rate")


def _principal(
    rows: Float[NDArray, "example sketch"], most: int
) -> tuple[Float[NDArray, " direction"], Float[NDArray, "direction sketch"]]:
    """Shares of the variance and unit vectors of the first principal directions; the sign is that of the largest entry."""
    count = len(rows)  # fewer than buckets, as a rule
    values, vectors = eigh(rows @ rows.T, subset_by_index=[count - min(most, count), count - 1])
    directions = _units((rows.T @ vectors[:, ::-1]).T)
    largest = np.take_along_axis(directions, np.abs(directions).argmax(1)[:, None], axis=1)
    return values[::-1] / np.square(rows).sum(), directions * np.where(largest < 0, -1, 1)


def _first_share(rows: Float[NDArray, "example sketch"]) -> float:
    """The share of the variance along the first principal direction, to single precision."""
    narrow, last = rows.astype(np.float32), len(rows) - 1
    (value,) = eigh(narrow @ narrow.T, eigvals_only=True, subset_by_index=[last, last])
    return float(value / np.square(rows).sum())


def _atom(
    rows: Float[NDArray, "example sketch"],
    raw: Float[NDArray, "example sketch"],
    direction: Float[NDArray, " sketch"],
    share: float,
    size: int,
    drawn: list[float],
) -> Atom:
    members = top(rows, direction, size)
    return Atom(
        direction, members, rows[members] @ direction, share, coherence(raw[members]), float(np.mean(drawn)), max(drawn)
    )


def top(
    rows: Float[NDArray, "example sketch"], direction: Float[NDArray, " sketch"], size: int
) -> Int[NDArray, " member"]:
    """The rows that point furthest along a direction, furthest first."""
    return np.argsort(-(rows @ direction), kind="stable")[:size]


def _units(rows: Float[NDArray, "row number"]) -> Float[NDArray, "row number"]:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
