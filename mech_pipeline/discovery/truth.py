"""What was found against what was planted: is each planted mechanism among the discoveries, when, and in which heads?

A planted mechanism is the tokens that need it, and what a named detector says of it: when it formed, and in which heads. A
discovery is of it where at least `PURE` of its tokens need it; of several the one with most of them counts.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int
from numpy.typing import NDArray

from mech_pipeline.discovery.formed import Followed, Formed, carriers

PURE = 0.8
_HEAD = re.compile(r"L\d+H\d+")


@dataclass(frozen=True)
class Recalled:
    """What became of a planted mechanism in a run.

    Attributes:
        pure: share of the discovery's tokens that need it; covered: share of those tokens that are in it.
        checkpoints_off: of its half from the detector's step, later is above 0; none: the detector found nothing.
        heads: Jaccard overlap of the heads that carry 80 % of what it gained by looking with the detector's.
    """

    found: bool
    pure: float | None = None
    covered: float | None = None
    step: int | None = None
    checkpoints_off: int | None = None
    heads: float | None = None


def recalled(
    paths: Followed,
    found: Sequence[Formed],
    needs: Bool[NDArray, " token"],
    formed_at: int | None,
    heads: Collection[str],
) -> Recalled:
    """Whether a planted mechanism is among the discoveries.

    Args:
        needs: tokens that need it.
        formed_at: step of the named detector; none: it found nothing.
        heads: of the detector, such as L1H2.
    """
    of_it = [one for one in found if one.is_discovery and needs[one.tokens].mean() >= PURE]
    if not of_it:
        return Recalled(False)
    best = max(of_it, key=lambda one: int(needs[one.tokens].sum()))
    inside, half = needs[best.tokens], int(best.half.value)
    off = None if formed_at is None else _place(paths.steps, half) - _place(paths.steps, formed_at)
    return Recalled(
        found=True,
        pure=float(inside.mean()),
        covered=float(inside.sum() / needs.sum()),
        step=half,
        checkpoints_off=off,
        heads=jaccard(looking_heads(paths, best.tokens), heads) if heads else None,
    )


def looking_heads(paths: Followed, tokens: Int[NDArray, " token"]) -> set[str]:
    """The heads that carry 80 % of what tokens gained by looking."""
    return {match[0] for name, _ in carriers(*paths.looked(tokens)) if (match := _HEAD.match(name))}


def jaccard(one: Collection[str], other: Collection[str]) -> float:
    """Shared by all.

    >>> jaccard({"L0H1", "L1H2"}, {"L1H2"})
    0.5
    """
    return len(set(one) & set(other)) / len(set(one) | set(other))


def _place(steps: Int[NDArray, " checkpoint"], step: int) -> int:
    return int(np.searchsorted(steps, step))
