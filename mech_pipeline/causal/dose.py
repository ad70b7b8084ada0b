"""Dose and response: does the mechanism form later (or earlier) the more examples are treated?

Page's trend test over seeds: within a seed the doses are ranked by when the mechanism formed, L = Σ_j j · Σ_s rank_sj. Under no
effect every order within a seed is as likely. Two-sided here: twice the smaller of the two ends, at most 1.
A run that did not form ranks after all that did; two that did not are tied.
Source: Page 1963; computed by `scipy.stats.page_trend_test`, exactly for up to eight doses and a dozen seeds. Its null has
no ties: with many of them p is a little too large or too small.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mech_pipeline.causal.survival import Formed


@dataclass(frozen=True)
class Trend:
    """Over all seeds that trained every dose.

    Attributes:
        statistic: Page's L.
        expected: of L where doses do nothing; above it: the more, the later.
        p: two-sided.
        seeds: that trained all doses.
    """

    statistic: float
    expected: float
    p: float
    seeds: int


def trend(doses: Sequence[Sequence[Formed]]) -> Trend | None:
    """None with fewer than two seeds, or fewer than three doses.

    >>> doses = [[Formed(s, 0, 100 * dose + s) for s in range(5)] for dose in (1, 2, 3)]
    >>> found = trend(doses)
    >>> found.statistic, found.expected, found.seeds, found.p < 0.001
    (70.0, 60.0, 5, True)
    """
    from scipy.stats import page_trend_test, rankdata

    steps = response(doses)
    if len(steps) < 2 or steps.shape[1] < 3:
        return None
    ranks = rankdata(steps, axis=1)
    ends = [page_trend_test(each, ranked=True) for each in (ranks, ranks[:, ::-1])]
    p = min(1.0, 2 * min(float(end.pvalue) for end in ends))
    seeds, k = ranks.shape
    return Trend(float(ends[0].statistic), seeds * k * (k + 1) ** 2 / 4, p, seeds)


def response(doses: Sequence[Sequence[Formed]]) -> NDArray[np.float64]:
    """[seed, dose]: when each formed, infinite where it did not; only seeds that trained every dose."""
    by_seed = [{run.seed: float("inf") if run.upper is None else float(run.upper) for run in runs} for runs in doses]
    common = sorted(set.intersection(*(set(each) for each in by_seed)))
    return np.array([[each[seed] for each in by_seed] for seed in common], dtype=np.float64).reshape(-1, len(doses))
