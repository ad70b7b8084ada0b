"""Tokens that the same components moved at the same time: density clusters and non-negative parts of their paths.

Row x = ΔL[x, window, component], each window divided by how much it moved tokens as a rule, so that late and slow windows count
beside the first ones; rows of length one, so that it is the shape of a path that counts; their first principal
components; HDBSCAN of these (`density.py`). Tokens with several skills are sums of parts: −ΔL, where it is positive, as W H
with W, H ≥ 0 (Lee & Seung 2001, multiplicative updates for the squared error).
Sources: POLCA (2025) clusters cumulative paths along Hessian directions with HDBSCAN; here directions are components.
"""

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from mech_pipeline.discovery.density import hdbscan
from mech_pipeline.discovery.paths import Paths

DIMENSIONS, NEIGHBOURS = 20, 3
_STILL = 0.02
"""A window that moved tokens by less than this share of the liveliest one is not blown up further."""
_TINY = 1e-12


def shapes(paths: Paths) -> Float[NDArray, "token dimension"]:
    """Where each token lies among the shapes of paths."""
    changes = paths.changes
    usual = np.percentile(np.abs(changes).sum(2), 75, axis=0)
    usual = np.maximum(usual, max(usual.max() * _STILL, _TINY))
    rows = (changes / usual[None, :, None]).reshape(len(changes), -1)
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), _TINY)
    left, sizes, _ = np.linalg.svd(rows - rows.mean(0), full_matrices=False)
    return left[:, :DIMENSIONS] * sizes[:DIMENSIONS]


def clusters(paths: Paths, smallest: int) -> Int[NDArray, " token"]:
    """The cluster of each token, from 0 on; −1: in none.

    Args:
        smallest: tokens of a cluster, at least.

    Raises:
        MechError: see `Paths.check`.
    """
    paths.check(smallest)
    return hdbscan(shapes(paths), smallest, NEIGHBOURS)


def skills(
    paths: Paths, count: int, seed: int = 0, rounds: int = 300
) -> tuple[Float[NDArray, "token skill"], Float[NDArray, "skill window component"]]:
    """How much of every skill each token has, and which components brought a skill when; skills sum to one over both.

    Args:
        count: skills.
        seed: of the first guess; the squared error only falls from there, to a place that depends on it.
    """
    gained = np.maximum(-paths.changes, 0)
    matrix = gained.reshape(len(gained), -1)
    generator = np.random.default_rng(seed)
    scale = np.sqrt(matrix.mean() / count)
    have = scale * generator.uniform(0.5, 1.5, (len(matrix), count))
    bring = scale * generator.uniform(0.5, 1.5, (count, matrix.shape[1]))
    for _ in range(rounds):
        have *= (matrix @ bring.T) / np.maximum(have @ (bring @ bring.T), _TINY)
        bring *= (have.T @ matrix) / np.maximum((have.T @ have) @ bring, _TINY)
    size = np.maximum(bring.sum(1), _TINY)
    return have * size, (bring / size[:, None]).reshape(count, *gained.shape[1:])
