"""Would other tokens or another training have given the same clusters? Matched overlap of two clusterings of the same tokens.

    matched(A, B) = Σ over matched pairs |a ∩ b| / |a ∪ b|  /  max(number of clusters of A, of B)

Every cluster of A is matched with at most one of B so that the sum is largest (Kuhn–Munkres); what is left over counts as 0.
1: the same clusters; a few shared tokens by chance give some hundredths.
Over trainings: runs that differ in the seed alone have the same probe tokens. Over draws of the probe: two draws of a share
of the tokens, apart from each other, clustered anew; only tokens in both can be compared.
Sources: Hennig 2007 (clusterwise stability by Jaccard over resamples); the matching, Kuhn 1955, is scipy's.
"""

from collections.abc import Callable
from typing import TypeVar

import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from mech_pipeline.discovery.needs import Needs
from mech_pipeline.discovery.paths import Paths
from mech_pipeline.spec.seeds import numpy_generator

SHARE = 0.75
"""Of the tokens, in each draw: two draws share three quarters of those."""
Labels = Int[NDArray, " token"]
T = TypeVar("T", Paths, Needs)


def matched(one: Labels, other: Labels) -> float | None:
    """Matched overlap of two clusterings; none: neither has a cluster.

    Args:
        one, other: the cluster of each token; −1: in none.

    >>> matched(np.array([0, 0, 1, 1, -1]), np.array([1, 1, 0, -1, 0]))
    0.6666666666666666
    >>> matched(np.array([0, 0, 1, 1]), np.array([0, 0, -1, -1]))
    0.5
    """
    ours, theirs = (_members(labels) for labels in (one, other))
    most = max(len(ours), len(theirs))
    if most == 0:
        return None
    if min(len(ours), len(theirs)) == 0:
        return 0.0
    shared = ours.astype(int) @ theirs.T.astype(int)
    overlap = shared / (ours.sum(1)[:, None] + theirs.sum(1)[None] - shared)
    return float(overlap[linear_sum_assignment(-overlap)].sum() / most)


def over_draws(paths: T, labelled: Callable[[T], Labels], pairs: int = 5, seed: int = 0) -> list[float | None]:
    """Matched overlap of clusters of pairs of draws, of the tokens that are in both.

    Args:
        labelled: clusters some tokens.
        seed: of the draws.
    """
    generator = numpy_generator(seed, "draws of probe tokens")
    count, found = round(SHARE * len(paths)), []
    for _ in range(pairs):
        one, other = (np.sort(generator.choice(len(paths), count, replace=False)) for _ in range(2))
        labels = [labelled(paths.some(drawn))[np.isin(drawn, also)] for drawn, also in ((one, other), (other, one))]
        found.append(matched(labels[0], labels[1]))
    return found


def _members(labels: Labels) -> NDArray[np.bool_]:
    """A row for each cluster, a column for each token."""
    return np.unique(labels[labels >= 0])[:, None] == labels
