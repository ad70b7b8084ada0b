"""When a mechanism forms in the runs of an arm: Kaplan–Meier, the median with its interval, log-rank between arms.

A run that formed did so between two evaluations, (lower, upper]; one that did not is censored after its last. Intervals of
one grid of evaluations are disjoint or the same, and then the estimator for interval-censored times (Turnbull 1976) puts its
mass as Kaplan–Meier does on their right ends: the curve is exact at evaluations and unknown between them.
Sources: Kaplan & Meier 1958; Mantel 1966 (log-rank); Turnbull 1976; computed by `scipy.stats`.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy.stats import CensoredData

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Formed:
    """One run's formation.

    Attributes:
        lower: last evaluation before it; of a run that did not form, its last evaluation.
        upper: first evaluation after it; none: it did not form.
    """

    seed: int
    lower: int
    upper: int | None


@dataclass(frozen=True)
class Median:
    """The step by which half of the runs have formed, and the interval of 95 %; none where it lies beyond what was trained."""

    step: int | None
    lower: int | None
    upper: int | None


def median(runs: Sequence[Formed]) -> Median:
    """Of the Kaplan–Meier curve; its interval where the log-log band of the curve crosses one half (Brookmeyer & Crowley 1982).

    >>> median([Formed(0, 90, 100), Formed(1, 110, 120), Formed(2, 200, None)]).step
    120
    """
    from scipy.stats import ecdf

    curve = ecdf(_censored(runs)).sf
    with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):  # where all or none are left, it has none
        band = curve.confidence_interval(method="log-log")
    low, high = (_crossing(curve.quantiles, part.probabilities) for part in (band.low, band.high))
    return Median(_crossing(curve.quantiles, curve.probabilities), low, high)


def share_formed(runs: Sequence[Formed]) -> tuple[Numbers, Numbers]:
    """(steps, share of runs that have formed by each): one minus the Kaplan–Meier curve, which is a stair.

    >>> [part.tolist() for part in share_formed([Formed(0, 90, 100), Formed(1, 110, 120), Formed(2, 200, None)])]
    [[100.0, 120.0, 200.0], [0.333, 0.667, 0.667]]
    """
    from scipy.stats import ecdf

    curve = ecdf(_censored(runs)).cdf
    return curve.quantiles, np.round(curve.probabilities, 3)


def _crossing(steps: Numbers, surviving: Numbers) -> int | None:
    """The first step at which at most half are left."""
    below = np.flatnonzero(surviving <= 0.5)
    return int(steps[below[0]]) if len(below) else None


def log_rank(some: Sequence[Formed], others: Sequence[Formed]) -> float | None:
    """Two-sided p that both arms form at the same rate; none if no run of either formed.

    >>> early = [Formed(seed, 90, 100) for seed in range(5)]
    >>> late = [Formed(seed, 190, 200) for seed in range(5)]
    >>> log_rank(early, late) < 0.01, log_rank(early, early)
    (True, 1.0)
    """
    from scipy.stats import logrank

    if not any(run.upper is not None for run in [*some, *others]):
        return None
    with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
        p = float(logrank(_censored(some), _censored(others)).pvalue)
    return p if np.isfinite(p) else 1.0  # all at one step: nothing tells them apart


def _censored(runs: Sequence[Formed]) -> "CensoredData":
    from scipy.stats import CensoredData

    formed = [run.upper for run in runs if run.upper is not None]
    return CensoredData(uncensored=formed, right=[run.lower for run in runs if run.upper is None])
