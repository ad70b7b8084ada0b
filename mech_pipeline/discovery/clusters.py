"""Tokens whose losses took the same course: density clusters (`density.py`), and non-negative parts of their paths.

By `courses`: the loss of each token over training, its mean subtracted, beside what it gained by looking so far, in three principal
components. Few numbers of a token, each the sum of many: what single tokens do in single heads is mostly noise.
By `paths`: ΔL[x, window, component], each window divided by how much it moved tokens as a rule, so that late and slow windows count
beside the first ones; rows of length one, so that it is the shape that counts; twenty principal components. Closer to
POLCA (2025), which clusters cumulative paths along Hessian directions. Which does what is in docs/log.md.

Tokens with several skills are sums of parts: −ΔL, where it is positive, as W H with W, H ≥ 0 (Lee & Seung 2001, multiplicative
updates for the squared error).
"""

from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from mech_pipeline.discovery.density import hdbscan
from mech_pipeline.discovery.paths import Paths
from mech_pipeline.spec.seeds import fixed_numpy_generator

DIMENSIONS, COURSES, NEIGHBOURS = 20, 3, 3
By = Literal["courses", "paths"]
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
    return _principal(rows, DIMENSIONS)


def courses(paths: Paths) -> Float[NDArray, "token dimension"]:
    """Where each token lies among the courses of losses."""
    losses = paths.losses - paths.losses.mean(1, keepdims=True)
    return _principal(np.concatenate([_of_one_size(losses), _of_one_size(paths.gained_by_looking())], axis=1), COURSES)


def clusters(paths: Paths, smallest: int, by: By = "courses") -> Int[NDArray, " token"]:
    """The cluster of each token, from 0 on; −1: in none.

    Args:
        smallest: tokens of a cluster, at least.
        by: what is compared.

    Raises:
        MechError: see `Paths.check`.
    """
    paths.check(smallest)
    return hdbscan(courses(paths) if by == "courses" else shapes(paths), smallest, NEIGHBOURS)


def _of_one_size(rows: Float[NDArray, "token number"]) -> Float[NDArray, "token number"]:
    """Divided by how much tokens differ in all."""
    spread = float(np.sqrt(rows.var(0).sum()))
    return rows / spread if spread > 0 else rows


def _principal(rows: Float[NDArray, "token number"], count: int) -> Float[NDArray, "token dimension"]:
    """The first principal components."""
    left, sizes, _ = np.linalg.svd(rows - rows.mean(0), full_matrices=False)
    return left[:, :count] * sizes[:count]


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
    generator = fixed_numpy_generator("first guess of skills", seed)
    scale = np.sqrt(matrix.mean() / count)
    have = scale * generator.uniform(0.5, 1.5, (len(matrix), count))
    bring = scale * generator.uniform(0.5, 1.5, (count, matrix.shape[1]))
    for _ in range(rounds):
        have *= (matrix @ bring.T) / np.maximum(have @ (bring @ bring.T), _TINY)
        bring *= (have.T @ matrix) / np.maximum((have.T @ have) @ bring, _TINY)
    size = np.maximum(bring.sum(1), _TINY)
    return have * size, (bring / size[:, None]).reshape(count, *gained.shape[1:])
