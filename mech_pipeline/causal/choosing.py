"""The examples that a recipe chooses, by a number of each."""

import zlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from mech_pipeline.errors import MechError

Examples = NDArray[np.int64]
"""Places in the pool."""
Numbers = NDArray[np.float64]


def chosen_count(candidates: int, share: float | None, count: int | None) -> int:
    """How many examples a share or a count is.

    Raises:
        MechError: none, or not fewer than there are.

    >>> chosen_count(1000, 0.05, None), chosen_count(1000, None, 7)
    (50, 7)
    """
    wanted = count if count is not None else round((share or 0.0) * candidates)
    if not 0 < wanted < candidates:
        raise MechError(
            f"the choice comes to {wanted} of {candidates} examples that can be chosen from",
            "choose at least one and not all: another `share` or `count`, other `kinds`, or a later `at`",
        )
    return wanted


def extreme(scores: Numbers, candidates: Examples, count: int, end: str) -> Examples:
    """The candidates of the largest (`top`) or smallest (`bottom`) scores, the most extreme first; ties by place.

    Args:
        scores: of every example of the pool.

    >>> extreme(np.array([9.0, 1.0, 3.0, 3.0]), np.array([1, 2, 3]), 2, "top").tolist()
    [2, 3]
    """
    sign = -1.0 if end == "top" else 1.0
    return candidates[np.argsort(sign * scores[candidates], kind="stable")[:count]]


def mean_rank(scores: Iterable[Numbers]) -> Numbers:
    """One score from several, whose units may differ: the mean over runs of the rank (0: lowest, 1: highest).

    >>> mean_rank([np.array([1.0, 2.0, 3.0]), np.array([10.0, 30.0, 20.0])]).tolist()
    [0.0, 0.75, 0.75]
    """
    from scipy.stats import rankdata

    ranks = [(rankdata(each) - 1) / max(1, len(each) - 1) for each in scores]
    return np.mean(ranks, axis=0, dtype=np.float64)


def gzip_ratio(text: str) -> float:
    """Bytes after zlib per byte of text: low where it repeats itself.

    >>> gzip_ratio("ab" * 200) < gzip_ratio("The quick brown fox jumps over the lazy dog.") <= 1.5
    True
    """
    content = text.encode()
    return len(zlib.compress(content, 9)) / max(1, len(content))
