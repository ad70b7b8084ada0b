"""Which examples each update sees: a pure function of (seed, step), so that resume, replay and attribution agree.

Without a mixture, position k of the run's endless example stream is `permutation(seed, k // n)[k % n]`; update t takes
positions t·B … (t+1)·B − 1. Each epoch is its own permutation. With a mixture, every group has such a stream of its
own, read as far as the group's share has come (`mixture.py`).
"""

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mech_pipeline.data.mixture import GroupCounts
from mech_pipeline.errors import MechError
from mech_pipeline.spec.mixture import Phase
from mech_pipeline.spec.seeds import numpy_generator


def examples_at_step(seed: int, step: int, *, pool_size: int, batch: int) -> NDArray[np.int64]:
    """Indices into the pool of the examples of update `step`, [batch].

    >>> examples_at_step(0, 3, pool_size=10, batch=4).tolist() == examples_at_step(0, 3, pool_size=10, batch=4).tolist()
    True
    """
    return _stream(seed, "order", np.arange(step * batch, (step + 1) * batch), pool_size)


class Order:
    """The order of a run.

    Args:
        seed: the run's.
        groups: indices into the pool of each group's examples; without a mixture, all of them are one stream.
        mixture: phases with the groups' weights; empty: no mixture.
        batch: examples per update.

    Raises:
        MechError: a group has no examples.

    >>> Order(0, {"all": np.arange(10)}, (), 4).at_step(3).tolist() == examples_at_step(0, 3, pool_size=10, batch=4).tolist()
    True
    """

    def __init__(
        self, seed: int, groups: Mapping[str, NDArray[np.int64]], mixture: tuple[Phase, ...], batch: int
    ) -> None:
        self._seed, self._batch, self._groups = seed, batch, dict(groups)
        self._counts = GroupCounts(mixture, batch) if mixture else None
        for name in self._counts.names if self._counts else self._groups:
            if len(self._groups.get(name, ())) == 0:
                raise MechError(
                    f"group {name!r} of the mixture has no examples in the pool",
                    "raise its share (data.plain, data.tiled, data.packed, data.part_shares), or data.examples",
                )
        if self._counts is None:
            self._all = np.sort(np.concatenate(list(self._groups.values())))

    def at_step(self, step: int) -> NDArray[np.int64]:
        """Indices into the pool of the examples of update `step`, [batch]; group after group where there are several."""
        if self._counts is None:
            positions = np.arange(step * self._batch, (step + 1) * self._batch)
            return self._all[_stream(self._seed, "order", positions, len(self._all))]
        before, after = self._counts.before(step), self._counts.before(step + 1)
        drawn = []
        for name, begin, end in zip(self._counts.names, before.tolist(), after.tolist(), strict=True):
            if end > begin:
                rows = self._groups[name]
                drawn.append(rows[_stream(self._seed, f"order:{name}", np.arange(begin, end), len(rows))])
        return np.concatenate(drawn)


class GivenOrder(Order):
    """An order that was recorded elsewhere.

    Args:
        order: indices into the pool, a row per update.
    """

    def __init__(self, order: NDArray[np.int64]) -> None:
        self._order = order

    def at_step(self, step: int) -> NDArray[np.int64]:
        """The recorded row."""
        return self._order[step]


def _stream(seed: int, purpose: str, positions: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Entries of an endless stream of permutations of `size`."""
    epochs, places = positions // size, positions % size
    found = np.empty(len(positions), dtype=np.int64)
    for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
        here = epochs == epoch
        found[here] = _permutation(seed, purpose, epoch, size)[places[here]]
    return found


@lru_cache(maxsize=8)
def _permutation(seed: int, purpose: str, epoch: int, size: int) -> NDArray[np.int64]:
    return numpy_generator(seed, f"{purpose}:{epoch}").permutation(size)
