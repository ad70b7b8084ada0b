"""How well clusters of tokens agree with kinds that are known: homogeneity, completeness, V-measure, adjusted Rand index.

    homogeneity = 1 − H(kind | cluster) / H(kind),   completeness = 1 − H(cluster | kind) / H(cluster),
    V = their harmonic mean;   ARI = (pairs together − expected) / (most − expected)

Homogeneity alone rewards splitting: a cluster for each token has 1. Tokens in no cluster are left out, and their share is
reported beside: a method that clusters little is not a good one.
Sources: Rosenberg & Hirschberg 2007; Hubert & Arabie 1985. Defined as in scikit-learn.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray
from scipy.special import xlogy


@dataclass(frozen=True)
class Agreement:
    """Agreement of clusters with kinds, of the tokens that are in a cluster.

    Attributes:
        clustered: share of the tokens that are.
    """

    homogeneity: float
    completeness: float
    v_measure: float
    adjusted_rand: float
    clusters: int
    clustered: float


def agreement(kinds: Int[NDArray, " token"], labels: Int[NDArray, " token"]) -> Agreement:
    """How well clusters agree with kinds.

    Args:
        labels: −1: in no cluster.

    >>> found = agreement(np.array([0, 0, 1, 1]), np.array([0, 1, 2, 2]))
    >>> found.homogeneity, round(found.completeness, 3), round(found.adjusted_rand, 3)
    (1.0, 0.667, 0.571)
    """
    inside = labels >= 0
    if not inside.any():
        return Agreement(0.0, 0.0, 0.0, 0.0, 0, 0.0)
    rows = np.unique(kinds[inside], return_inverse=True)[1]
    columns = np.unique(labels[inside], return_inverse=True)[1]
    table = np.zeros((rows.max() + 1, columns.max() + 1))
    np.add.at(table, (rows, columns), 1)
    joint, kind, cluster = _entropy(table.ravel()), _entropy(table.sum(1)), _entropy(table.sum(0))
    homogeneity = 1 - (joint - cluster) / kind if kind else 1.0
    completeness = 1 - (joint - kind) / cluster if cluster else 1.0
    total = homogeneity + completeness
    v_measure = 2 * homogeneity * completeness / total if total else 0.0
    share = float(inside.mean())
    return Agreement(homogeneity, completeness, v_measure, _adjusted_rand(table), table.shape[1], share)


def _entropy(counts: NDArray) -> float:
    shares = counts / counts.sum()
    return float(-xlogy(shares, shares).sum())


def _adjusted_rand(table: NDArray) -> float:
    def pairs(counts: NDArray) -> float:
        return float((counts * (counts - 1) / 2).sum())

    together, kinds, clusters = pairs(table), pairs(table.sum(1)), pairs(table.sum(0))
    all_pairs = pairs(np.array([table.sum()]))
    if all_pairs == 0:
        return 1.0
    expected, most = kinds * clusters / all_pairs, (kinds + clusters) / 2
    return 1.0 if most == expected else (together - expected) / (most - expected)
