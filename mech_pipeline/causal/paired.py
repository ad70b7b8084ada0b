"""Two arms, seed by seed: how much later or earlier does the mechanism form?

Runs of one seed share initialisation and order of examples, so their difference is the arm's doing and the noise of seeds
cancels. d_s = step of the arm − step of the reference, over seeds s that both trained:

    shift     median over i ≤ j of (d_i + d_j) / 2, the Hodges–Lehmann estimate
    interval  where the signed-rank test does not reject; with fewer than 6 pairs none can exclude anything at 95 %
    p         exact sign-flip test of the mean of d: under no effect each d_s is as likely as −d_s; two-sided

Where one run of a pair did not form, its d is at least (or at most) what is known, and that bound is used: a delay is then
underestimated, never made up. Where neither formed, the pair says nothing and is left out.
Sources: Fisher 1935, §21 (sign flips); Hodges & Lehmann 1963; Hollander & Wolfe 1999, §3.3 (interval).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
from numpy.typing import NDArray

from mech_pipeline.causal.survival import Formed
from mech_pipeline.spec.seeds import numpy_generator

_EXACT = 16
"""Pairs up to which all sign flips are tried; above, 100,000 drawn ones."""
_LEVEL = 0.05


@dataclass(frozen=True)
class Shift:
    """An arm against another.

    Attributes:
        steps: Hodges–Lehmann shift, in updates; positive: later.
        lower, upper: interval of 95 %; none: so few pairs exclude nothing.
        p: of the sign-flip test.
        smallest_p: that this number of pairs can give at all.
        pairs: that say something.
        bounds: of these, with one run that did not form.
    """

    steps: float
    lower: float | None
    upper: float | None
    p: float
    smallest_p: float
    pairs: int
    bounds: int


def shift(arm: Sequence[Formed], reference: Sequence[Formed]) -> Shift | None:
    """None if no pair says anything.

    >>> later = [Formed(s, 0, 110 + s) for s in range(6)]
    >>> found = shift(later, [Formed(s, 0, 100) for s in range(6)])
    >>> found.steps, found.lower, found.upper, found.p
    (12.5, 10.0, 15.0, 0.03125)
    """
    pairs = _telling_pairs(arm, reference)
    if not pairs:
        return None
    d = paired_differences(arm, reference)
    lower, upper = hodges_lehmann_interval(d)
    bounds = sum(one.upper is None or two.upper is None for one, two in pairs)
    return Shift(hodges_lehmann(d), lower, upper, sign_flip_p(d), 2.0 ** (1 - len(d)), len(d), bounds)


def paired_differences(arm: Sequence[Formed], reference: Sequence[Formed]) -> NDArray[np.float64]:
    """d of every pair that says something, in updates: the arm's step minus the reference's, or what is known of it."""
    pairs = _telling_pairs(arm, reference)
    return np.array([_at_least(one) - _at_least(two) for one, two in pairs], dtype=np.float64)


def _telling_pairs(arm: Sequence[Formed], reference: Sequence[Formed]) -> list[tuple[Formed, Formed]]:
    """Runs of one seed, of which at least one formed."""
    others = {run.seed: run for run in reference}
    pairs = [(run, others[run.seed]) for run in arm if run.seed in others]
    return [(one, two) for one, two in pairs if one.upper is not None or two.upper is not None]


def _at_least(run: Formed) -> int:
    return run.lower if run.upper is None else run.upper


def hodges_lehmann(d: NDArray[np.float64]) -> float:
    """Median of the averages of all pairs, each with itself too.

    >>> hodges_lehmann(np.array([1.0, 2.0, 6.0]))
    2.75
    """
    return float(np.median(_walsh(d)))


def _walsh(d: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.sort([(one + two) / 2 for one, two in combinations_with_replacement(d.tolist(), 2)])


def hodges_lehmann_interval(d: NDArray[np.float64]) -> tuple[float | None, float | None]:
    """The averages of pairs between which the exact signed-rank test does not reject at 5 %."""
    averages = _walsh(d)
    at_most = np.cumsum(_signed_rank_counts(len(d))) / 2.0 ** len(d)
    outside = int(np.searchsorted(at_most, _LEVEL / 2, side="right"))  # averages that may be left out at each end
    if outside == 0:
        return None, None
    return float(averages[outside - 1]), float(averages[len(averages) - outside])


def _signed_rank_counts(n: int) -> NDArray[np.float64]:
    """In how many of the 2ⁿ sign patterns the ranks of positive ones sum to 0, 1, 2, …"""
    counts = np.zeros(n * (n + 1) // 2 + 1)
    counts[0] = 1
    for rank in range(1, n + 1):
        counts[rank:] = counts[rank:] + counts[:-rank]
    return counts


def sign_flip_p(d: NDArray[np.float64]) -> float:
    """Two-sided: the share of sign patterns with a mean at least as far from 0.

    >>> sign_flip_p(np.array([1.0, 2.0, 3.0])), sign_flip_p(np.zeros(4))
    (0.25, 1.0)
    """
    if len(d) <= _EXACT:
        signs = 1 - 2 * ((np.arange(2 ** len(d))[:, None] >> np.arange(len(d))) & 1)
    else:
        draws = numpy_generator(0, "sign flips").integers(0, 2, (100_000, len(d)))
        signs = np.concatenate([np.ones((1, len(d)), dtype=np.int64), 1 - 2 * draws])
    means = np.abs(signs @ d)
    return float(np.mean(means >= np.abs(d.sum()) * (1 - 1e-12)))
