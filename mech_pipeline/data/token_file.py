"""Pre-shuffled token ids in a file: rows of one length, one after another; update t saw rows t·B … (t+1)·B − 1.

So Pythia's trainings read `pile-…-pythia-preshuffled`: rows of 2,049 tokens of two bytes (2,048 that are read, and the last
target), 1,024 an update. Rows become the pool of a run that was trained elsewhere. Source: EleutherAI/pythia,
utils/batch_viewer.py.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mech_pipeline.data.drawing import DrawnPool, Group
from mech_pipeline.data.examples import Places, example_numbers
from mech_pipeline.data.order import Order
from mech_pipeline.data.packing import Segment
from mech_pipeline.data.tokenizer import token_dtype
from mech_pipeline.errors import MechError

GIVEN = "given"
"""Kind of the examples that a token file gives."""
_CHUNK = 1 << 14


@dataclass(frozen=True)
class FileRows:
    """Rows of a file as the examples of a group.

    Attributes:
        first: row of the file that is the first of the pool.
        vocabulary: rows of the model's embedding; larger ids are not its tokens.
    """

    path: Path
    rows: NDArray[np.unsignedinteger]
    first: int
    vocabulary: int

    @property
    def places(self) -> Places:
        """No document of the corpus; `start` is the row of the file."""
        nowhere = np.full(len(self.rows), -1, dtype=np.int32)
        return Places(
            np.zeros(len(self.rows), dtype=np.int32), nowhere, np.arange(len(self.rows), dtype=np.int64) + self.first
        )

    def tokens(self, rows: NDArray[np.int64]) -> NDArray[np.int32]:
        """Token ids of some of them.

        Raises:
            MechError: one is none of the model's.
        """
        found = self.rows[rows].astype(np.int32)
        if len(found) and int(found.max()) >= self.vocabulary:
            raise MechError(
                f"{self.path} has token {int(found.max())}, and the model {self.vocabulary}",
                "name the token file of this suite, and data.context as its rows are long",
            )
        return found

    def segments(self, row: int) -> list[Segment]:
        """Where documents begin inside a row is not known."""
        return []


class StraightOrder(Order):
    """Update after update takes the next rows of the pool.

    >>> StraightOrder(first=5, batch=2).at_step(6).tolist()
    [2, 3]
    """

    def __init__(self, first: int, batch: int) -> None:
        self._first, self._batch = first, batch

    def at_step(self, step: int) -> NDArray[np.int64]:
        """Indices into the pool of the examples of update `step`, [batch]."""
        begin = (step - self._first) * self._batch
        return np.arange(begin, begin + self._batch)


def rows_of_file(path: Path, context: int, vocabulary: int) -> NDArray[np.unsignedinteger]:
    """The file as rows of `context` tokens, mapped into memory: [row, token].

    Raises:
        MechError: there is no such file, or it is no whole number of rows.
    """
    dtype = token_dtype(vocabulary)
    if not path.is_file():
        raise MechError(f"there is no file {path}", "check imported.batches")
    size, row = path.stat().st_size, context * np.dtype(dtype).itemsize
    if not size or size % row:
        raise MechError(
            f"{path} has {size} bytes, no whole number of rows of {context} tokens of {np.dtype(dtype).itemsize} bytes",
            "set data.context to the tokens of a row (Pythia's have 2049), or fetch the file again",
        )
    return np.memmap(path, dtype=dtype, mode="r").reshape(-1, context)


def pool_of_file(path: Path, context: int, vocabulary: int, first: int, count: int, tokenizer_sha256: str) -> DrawnPool:
    """Rows `first` … `first + count − 1` of a token file as a pool.

    Args:
        vocabulary: rows of the model's embedding.

    Raises:
        MechError: see `rows_of_file`, or a token is none of the model's.
    """
    rows = FileRows(path, rows_of_file(path, context, vocabulary)[first : first + count], first, vocabulary)
    ids = [
        example_numbers(rows.tokens(np.arange(begin, min(begin + _CHUNK, count))), tokenizer_sha256)
        for begin in range(0, count, _CHUNK)
    ]
    return DrawnPool([Group(GIVEN, rows, np.concatenate(ids))])
