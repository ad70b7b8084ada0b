"""One array whose rows lie in several files, mapped into memory: what is not asked for is not read."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class ShardedArray:
    """Arrays of equal type and row shape, one after the other, indexed as one.

    >>> ShardedArray([np.array([1, 2]), np.array([3])])[np.array([[2, 0]])].tolist()
    [[3, 1]]
    """

    def __init__(self, shards: Sequence[NDArray]) -> None:
        self._shards = list(shards)
        self._ends = np.cumsum([len(shard) for shard in self._shards])

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows of all shards, and the shape of a row."""
        return (len(self), *self._shards[0].shape[1:])

    @property
    def dtype(self) -> np.dtype:
        """Of all shards."""
        return self._shards[0].dtype

    def __getitem__(self, index: NDArray[np.int64]) -> NDArray:
        """The rows at an index of any shape; a copy.

        Raises:
            IndexError: a row is not there.
        """
        if len(self._shards) == 1:
            return self._shards[0][index]
        flat = np.asarray(index, dtype=np.int64).reshape(-1)
        if flat.size and (flat.min() < 0 or flat.max() >= len(self)):
            raise IndexError(f"row {flat.min()} or {flat.max()} lies outside the {len(self)} rows")
        number = np.searchsorted(self._ends, flat, side="right")
        rows = np.empty((len(flat), *self.shape[1:]), dtype=self.dtype)
        for shard in np.unique(number):
            chosen = number == shard
            begin = self._ends[shard - 1] if shard else 0
            rows[chosen] = self._shards[shard][flat[chosen] - begin]
        return rows.reshape(*np.shape(index), *self.shape[1:])


TokenArray = NDArray[np.unsignedinteger] | ShardedArray
"""Token ids of a whole corpus, in memory or in files."""
