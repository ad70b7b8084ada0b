"""What clusters of paths are held against: cheaper labels of the same tokens, scored in the same way (`scoring.py`).

- `loss_curves`: k-means of the tokens' loss curves, each minus its mean: what needs no components (POLCA's "loss").
- `last_window`: k-means of the directions of the last window that moved: what needs no time.
- `bins`: equal bins of a number of the token: how frequent it is, how well its context compresses (`compressed_share`).
- `random_like`: the found clusters' sizes, at random.
"""

import zlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from mech_pipeline.discovery.formed import Followed
from mech_pipeline.discovery.paths import Paths
from mech_pipeline.spec.seeds import fixed_numpy_generator

_STARTS = 8


def loss_curves(paths: Followed, count: int, seed: int = 0) -> Int[NDArray, " token"]:
    """k-means of loss curves."""
    return in_groups(paths.losses - paths.losses.mean(1, keepdims=True), count, seed)


def last_window(paths: Paths, count: int, seed: int = 0) -> Int[NDArray, " token"]:
    """k-means of the directions in which components moved losses in the last window that moved any."""
    moved = np.flatnonzero(np.abs(paths.changes).sum((0, 2)))
    rows = paths.changes[:, moved[-1]]
    return in_groups(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12), count, seed)


def bins(values: Float[NDArray, " token"], count: int) -> Int[NDArray, " token"]:
    """Bins with as many tokens each, up to one.

    >>> bins(np.array([3.0, 1.0, 2.0, 9.0]), 2).tolist()
    [1, 0, 0, 1]
    """
    return np.argsort(np.argsort(values, kind="stable"), kind="stable") * count // len(values)


def compressed_share(contexts: Sequence[Sequence[int]]) -> Float[NDArray, " token"]:
    """Compressed bytes per byte of each context's token ids (zlib)."""
    raw = [np.asarray(ids, dtype="<u2").tobytes() for ids in contexts]
    return np.array([len(zlib.compress(each, 9)) / len(each) for each in raw])


def random_like(labels: Int[NDArray, " token"], seed: int = 0) -> Int[NDArray, " token"]:
    """The same sizes, and as many tokens in none, at random."""
    return fixed_numpy_generator("clusters at random", seed).permutation(labels)


def in_groups(rows: Float[NDArray, "token number"], count: int, seed: int = 0) -> Int[NDArray, " token"]:
    """k-means: the best of some starts, by the distances left."""
    with threadpool_limits(1):
        return KMeans(count, n_init=_STARTS, random_state=seed).fit(rows).labels_.astype(np.int64)
