"""From scores of updates to columns: ids instead of places in the pool, and one row where an example came twice."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int


@dataclass(frozen=True)
class ExampleScores:
    """Scores of (update, example) pairs, each pair once.

    Attributes:
        update_step: the update of each row.
        example: place in the pool.
        values: one number, or one per token or component.
    """

    update_step: Int[np.ndarray, " row"]
    example: Int[np.ndarray, " row"]
    values: Float[np.ndarray, "row part"]

    @classmethod
    def gathered(
        cls, steps: Sequence[int], examples: Sequence[Int[np.ndarray, " example"]], values: Sequence[np.ndarray]
    ) -> "ExampleScores":
        """Of several updates; an example that stands twice in one batch gets the sum of both places."""
        step = np.repeat(np.array(steps, dtype=np.int64), [len(batch) for batch in examples])
        example, value = np.concatenate(examples).astype(np.int64), np.concatenate(values).astype(np.float64)
        value = value.reshape(len(example), -1)
        pairs, first, place = np.unique(np.stack([step, example]), axis=1, return_index=True, return_inverse=True)
        if len(first) < len(step):
            summed = np.zeros((len(first), value.shape[1]))
            np.add.at(summed, place.reshape(-1), value)
            return cls(pairs[0], pairs[1], summed)
        return cls(step, example, value)

    def columns(self, example_ids: np.ndarray) -> dict[str, pa.Array]:
        """update_step, example_id, value: all parts of a row one after another."""
        parts = self.values.shape[1]
        unique, codes = np.unique(self.example, return_inverse=True)
        ids = pa.DictionaryArray.from_arrays(
            pa.array(np.repeat(codes.reshape(-1), parts).astype(np.int32)), pa.array(example_ids[unique].tolist())
        )
        return {
            "update_step": pa.array(np.repeat(self.update_step, parts).astype(np.int32)),
            "example_id": ids.cast(pa.string()),
            "value": pa.array(self.values.reshape(-1).astype(np.float32)),
        }

    def parts(self, names: Sequence[str] | Int[np.ndarray, " part"]) -> pa.Array:
        """The name (or number) of each row's part, in the order of `columns`."""
        rows = len(self.update_step)
        if isinstance(names, np.ndarray):
            return pa.array(np.tile(names, rows).astype(np.int32))
        codes = pa.array(np.tile(np.arange(len(names)), rows).astype(np.int32))
        return pa.DictionaryArray.from_arrays(codes, pa.array(list(names))).cast(pa.string())
