"""Tokens whose losses took the same course: density clusters (HDBSCAN), and non-negative parts of their paths.

By `courses`: the loss of each token over training, its mean subtracted, beside what it gained by looking so far, in three principal
components. Few numbers of a token, each the sum of many: what single tokens do in single heads is mostly noise.
By `paths`: ΔL[x, window, component], each window divided by how much it moved tokens as a rule, so that late and slow windows count
beside the first ones; rows of length one, so that it is the shape that counts; twenty principal components. Closer to
POLCA (2025), which clusters cumulative paths along Hessian directions.
By `shares`: which share of its first loss each token has lost so far, beside cumulative paths, standardised for each window and
component over tokens, of length one; eight principal components. It was the best of some forty on two planted runs, and on three
others no better than the first two: nobody asks for it but `benchmarks/discovery.py`. Which does what is in docs/log.md.

HDBSCAN (Campello et al. 2015) keeps the regions that stay dense over the widest range of scales; points in none are noise.
Tokens with several skills are sums of parts: −ΔL, where it is positive, as W H with W, H ≥ 0. Both are scikit-learn's, on one
thread, so that the same paths give the same clusters on every machine with the same libraries.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from sklearn.cluster import HDBSCAN
from sklearn.decomposition import NMF, PCA
from threadpoolctl import threadpool_limits

from mech_pipeline.discovery.paths import Paths

DIMENSIONS, COURSES, SHARES = 20, 3, 8
_LEAST_LOSS = 0.1
"""Nats; a token whose first loss is smaller has no share to speak of."""
NEIGHBOURS = 4
"""Points that make a place dense, the point itself among them."""
By = Literal["courses", "paths", "shares"]
_STILL = 0.02
"""A window that moved tokens by less than this share of the liveliest one is not blown up further."""
_TINY = 1e-12
_ROUNDS = 1000
"""Of non-negative factorisation, at most; scikit-learn warns where they do not do."""


def shapes(paths: Paths) -> Float[NDArray, "token dimension"]:
    """Where each token lies among the shapes of paths."""
    changes = paths.changes
    usual = np.percentile(np.abs(changes).sum(2), 75, axis=0)
    usual = np.maximum(usual, max(usual.max() * _STILL, _TINY))
    rows = (changes / usual[None, :, None]).reshape(len(changes), -1)
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), _TINY)
    return principal(rows, DIMENSIONS)


def courses(paths: Paths) -> Float[NDArray, "token dimension"]:
    """Where each token lies among the courses of losses."""
    losses = paths.losses - paths.losses.mean(1, keepdims=True)
    return principal(np.concatenate([of_one_size(losses), of_one_size(paths.gained_by_looking())], axis=1), COURSES)


def shares(paths: Paths) -> Float[NDArray, "token dimension"]:
    """Where each token lies among the shares of its loss that it lost, and among cumulative paths."""
    so_far = paths.changes.cumsum(1).reshape(len(paths), -1)
    spread = np.maximum(so_far.std(0), 1e-3 * so_far.std() + _TINY)
    alike = (so_far - so_far.mean(0)) / spread
    alike /= np.maximum(np.linalg.norm(alike, axis=1, keepdims=True), _TINY)
    return principal(np.concatenate([of_one_size(shares_of_first(paths.losses)), of_one_size(alike)], axis=1), SHARES)


PLACES: dict[By, Callable[[Paths], Float[NDArray, "token dimension"]]] = {
    "courses": courses,
    "paths": shapes,
    "shares": shares,
}


def clusters(paths: Paths, smallest: int, by: By = "courses") -> Int[NDArray, " token"]:
    """The cluster of each token, from 0 on; −1: in none.

    Args:
        smallest: tokens of a cluster, at least.
        by: what is compared.

    Raises:
        MechError: see `Paths.check`.
    """
    paths.check(smallest)
    with threadpool_limits(1):
        return hdbscan(PLACES[by](paths), smallest)


def hdbscan(points: Float[NDArray, "point dimension"], smallest: int) -> Int[NDArray, " point"]:
    """The cluster of each point, from 0 on in order of size; −1: noise.

    Args:
        smallest: points of a cluster, at least.

    >>> line = np.concatenate([np.linspace(0, 1, 9), np.linspace(8, 9, 7), [30]])[:, None]
    >>> hdbscan(line, smallest=4).tolist()
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, -1]
    """
    labels = HDBSCAN(min_cluster_size=smallest, min_samples=NEIGHBOURS, n_jobs=1, copy=True).fit(points).labels_
    sizes = np.bincount(labels[labels >= 0])
    place = np.argsort(np.argsort(-sizes, kind="stable"), kind="stable")
    return np.where(labels < 0, -1, np.append(place, -1)[labels]).astype(np.int64)


def shares_of_first(losses: Float[NDArray, "token checkpoint"]) -> Float[NDArray, "token checkpoint"]:
    """Losses, each divided by the token's first one."""
    return losses / np.maximum(losses[:, :1], _LEAST_LOSS)


def of_one_size(rows: Float[NDArray, "token number"]) -> Float[NDArray, "token number"]:
    """Numbers of tokens, divided by how much tokens differ in all."""
    spread = float(np.sqrt(rows.var(0).sum()))
    return rows / spread if spread > 0 else rows


def principal(rows: Float[NDArray, "token number"], count: int) -> Float[NDArray, "token dimension"]:
    """The first principal components."""
    return PCA(min(count, *rows.shape), svd_solver="full").fit_transform(rows)


def skills(
    paths: Paths, count: int, seed: int = 0
) -> tuple[Float[NDArray, "token skill"], Float[NDArray, "skill window component"]]:
    """How much of every skill each token has, and which components brought a skill when; skills sum to one over both.

    Args:
        count: skills.
        seed: of the first guess; the squared error only falls from there, to a place that depends on it.
    """
    gained = np.maximum(-paths.changes, 0)
    with threadpool_limits(1):
        found = NMF(count, init="nndsvda", random_state=seed, max_iter=_ROUNDS)
        have = found.fit_transform(gained.reshape(len(gained), -1))
    size = np.maximum(found.components_.sum(1), _TINY)
    return have * size, (found.components_ / size[:, None]).reshape(count, *gained.shape[1:])
