"""The pool: all training examples of a run, in memory or mapped from files, read by example."""

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from mech_pipeline.data.sharded import ShardedArray


class Pool:
    """Token ids of all examples; only the examples that are asked for are read and made int64.

    >>> pool = Pool(ShardedArray([np.arange(12, dtype=np.uint16).reshape(4, 3)]))
    >>> len(pool), pool.shape, pool[torch.tensor([3, 0])].tolist()
    (4, (4, 3), [[9, 10, 11], [0, 1, 2]])
    """

    def __init__(self, tokens: ShardedArray) -> None:
        self._tokens = tokens

    def __len__(self) -> int:
        return len(self._tokens)

    @property
    def shape(self) -> tuple[int, int]:
        """(examples, context)."""
        examples, context = self._tokens.shape
        return examples, context

    def __getitem__(
        self, index: Int[Tensor, "*rows"] | NDArray[np.integer] | slice | int
    ) -> Int[Tensor, "*rows token"]:
        """Token ids of the examples at an index, as a tensor would give them."""
        if isinstance(index, slice):
            rows = np.arange(*index.indices(len(self)))
        else:
            rows = np.asarray(index)
            rows = np.where(rows < 0, rows + len(self), rows)
        return torch.from_numpy(self._tokens[rows].astype(np.int64))
