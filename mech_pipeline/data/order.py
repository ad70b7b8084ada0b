"""Which examples each update sees: a pure function of (seed, step), so that resume, replay and attribution agree.

Position k of the run's endless example stream is `permutation(seed, k // n)[k % n]`; update t takes positions
t·B … (t+1)·B − 1. Each epoch is its own permutation.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mech_pipeline.spec.seeds import numpy_generator


def examples_at_step(seed: int, step: int, *, pool_size: int, batch: int) -> NDArray[np.int64]:
    """Indices into the pool of the examples of update `step`, [batch].

    >>> examples_at_step(0, 3, pool_size=10, batch=4).tolist() == examples_at_step(0, 3, pool_size=10, batch=4).tolist()
    True
    """
    positions = np.arange(step * batch, (step + 1) * batch)
    epochs, places = positions // pool_size, positions % pool_size
    return np.array([_permutation(seed, int(e), pool_size)[p] for e, p in zip(epochs, places, strict=True)])


@lru_cache(maxsize=8)
def _permutation(seed: int, epoch: int, pool_size: int) -> NDArray[np.int64]:
    return numpy_generator(seed, f"order:{epoch}").permutation(pool_size)
