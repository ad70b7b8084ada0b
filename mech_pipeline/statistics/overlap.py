"""Do two rankings agree? Overlap of their tops against chance, and rank correlation.

Of n things that both rank, the k largest of each have o in common. Of two rankings that know nothing of each other,
o is hypergeometric with mean k² / n (a share of k / n); p = P(O ≥ o). Spearman's ρ looks at all n.
Extremes: equal rankings share everything (overlap 1, ρ 1), opposite ones nothing (overlap 0, ρ −1).
Ties are cut in the order given, which should say nothing about the value.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Overlap:
    """How far two rankings agree.

    Attributes:
        n: things that both rank.
        top: k, how many of each are compared.
        shared: how many of these are in both tops.
        p: chance of as many or more.
        correlation: Spearman's ρ; none where it is undefined.
    """

    n: int
    top: int
    shared: int
    p: float
    correlation: float | None

    @property
    def share(self) -> float:
        """Of the top."""
        return self.shared / self.top

    @property
    def by_chance(self) -> float:
        """The share that chance gives."""
        return self.top / self.n


def overlap(first: NDArray[np.float64], second: NDArray[np.float64], share: float) -> Overlap:
    """The agreement of the largest `share` of two columns of values, at least one.

    >>> overlap(np.array([4.0, 3.0, 2.0, 1.0]), np.array([3.0, 4.0, 2.0, 1.0]), 0.5).share
    1.0
    """
    from scipy import stats  # late: it takes a second to load

    n, top = len(first), tail_size(len(first), share)
    tops = [set(np.argsort(-values, kind="stable")[:top].tolist()) for values in (first, second)]
    shared = len(tops[0] & tops[1])
    defined = n >= 3 and np.ptp(first) > 0 and np.ptp(second) > 0
    correlation = float(stats.spearmanr(first, second).statistic) if defined else None
    return Overlap(n, top, shared, float(stats.hypergeom.sf(shared - 1, n, top, top)), correlation)


def tail_size(n: int, share: float) -> int:
    """How many of n are in a tail of a share; at least one.

    >>> tail_size(40, 0.05), tail_size(3, 0.05)
    (2, 1)
    """
    return max(1, round(share * n))
