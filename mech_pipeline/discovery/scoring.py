"""How well clusters of tokens agree with kinds that are known: homogeneity, completeness, V-measure, adjusted Rand index.

    homogeneity = 1 − H(kind | cluster) / H(kind),   completeness = 1 − H(cluster | kind) / H(cluster),
    V = their harmonic mean;   ARI = (pairs together − expected) / (most − expected)

Homogeneity alone rewards splitting: a cluster for each token has 1. Tokens in no cluster are left out, and their share is
reported beside: a method that clusters little is not a good one.
Sources: Rosenberg & Hirschberg 2007; Hubert & Arabie 1985. Computed by scikit-learn.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score, homogeneity_completeness_v_measure


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
    >>> [round(each, 3) for each in (found.homogeneity, found.completeness, found.adjusted_rand)]
    [1.0, 0.667, 0.571]
    """
    inside = labels >= 0
    if not inside.any():
        return Agreement(0.0, 0.0, 0.0, 0.0, 0, 0.0)
    parts = homogeneity_completeness_v_measure(kinds[inside], labels[inside])
    homogeneity, completeness, v_measure = (float(part) for part in parts)
    together = float(adjusted_rand_score(kinds[inside], labels[inside]))
    count, share = len(np.unique(labels[inside])), float(inside.mean())
    return Agreement(homogeneity, completeness, v_measure, together, count, share)
