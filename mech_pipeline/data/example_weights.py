"""Weights of single examples in their batch loss, always or in windows of updates.

A file with columns example_id, weight and optionally first_update, last_update (both inclusive; empty: from the first,
to the last). Where no row applies, the weight is 1. The batch loss is Σ_i w_i ℓ_i / B: the denominator stays B, so weight
0 removes an example and leaves the others as they are, and weight 2 shows it twice.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from mech_pipeline.data.weights_file import weights_sha256
from mech_pipeline.errors import MechError

LAST = np.iinfo(np.int64).max
_NEEDED, _OPTIONAL = {"example_id", "weight"}, {"first_update", "last_update"}
_NEXT = "correct `data.weights`; its columns are example_id, weight, first_update, last_update"


@dataclass(frozen=True)
class ExampleWeights:
    """Rows in order of (example, first).

    Attributes:
        example: index into the pool.
        weight: of that example's loss.
        first: first update in which it applies.
        last: last update in which it applies.
    """

    example: NDArray[np.int64]
    weight: NDArray[np.float64]
    first: NDArray[np.int64]
    last: NDArray[np.int64]

    def at(
        self, step: int | Int[np.ndarray, " example"], examples: Int[Tensor, " example"]
    ) -> Float[Tensor, " example"]:
        """Weights of some examples at an update, or each at an update of its own, float64."""
        wanted = examples.numpy()
        begin, end = (np.searchsorted(self.example, wanted, side=side) for side in ("left", "right"))
        weights = np.ones(len(wanted))
        for offset in range(int((end - begin).max(initial=0))):
            row = np.minimum(begin + offset, len(self.example) - 1)
            applies = (begin + offset < end) & (self.first[row] <= step) & (step <= self.last[row])
            weights = np.where(applies, self.weight[row], weights)
        return torch.from_numpy(weights)


def read_weights(name: str, sha256: str, ids: NDArray[np.uint64], home: Path | None = None) -> ExampleWeights:
    """Reads a weights file.

    Args:
        sha256: what the file must hold.
        ids: of the pool's examples, as numbers.
        home: folder that a relative name begins at; default: the current one.

    Raises:
        MechError: the file has changed, cannot be read, or a row is wrong: named with its value.
    """
    if weights_sha256(name, home) != sha256:
        raise MechError(f"weights file {name} has changed since the experiment was read", "`mech run` it again")
    rows = _read_table(name, (home or Path.cwd()) / name)
    bad = rows.filter(~pl.col("weight").is_finite() | (pl.col("weight") < 0))
    if len(bad):
        first = bad.row(0, named=True)
        raise MechError(
            f"weights file {name}: weight of example {first['example_id']} is {first['weight']}; "
            "weights are finite and not negative",
            _NEXT,
        )
    backwards = rows.filter((pl.col("first_update") < 0) | (pl.col("first_update") > pl.col("last_update")))
    if len(backwards):
        first = backwards.row(0, named=True)
        raise MechError(
            f"weights file {name}: window {first['first_update']} to {first['last_update']} of example "
            f"{first['example_id']} is none",
            _NEXT,
        )
    numbers = np.array([_number(name, text) for text in rows["example_id"]], dtype=np.uint64)
    order = np.argsort(ids)
    place = np.minimum(np.searchsorted(ids, numbers, sorter=order), len(ids) - 1)
    example = order[place]
    if (unknown := ids[example] != numbers).any():
        raise MechError(
            f"weights file {name}: example {rows['example_id'][int(np.argmax(unknown))]} is not in the pool "
            f"({int(unknown.sum())} such rows)",
            "take ids from the table `examples`, of a run with the same data",
        )
    return _sorted(name, rows, example)


def _sorted(name: str, rows: pl.DataFrame, example: NDArray[np.int64]) -> ExampleWeights:
    first, last = (rows[column].to_numpy().astype(np.int64) for column in ("first_update", "last_update"))
    order = np.lexsort((first, example))
    example, first, last = example[order].astype(np.int64), first[order], last[order]
    overlap = (example[1:] == example[:-1]) & (first[1:] <= last[:-1])
    if overlap.any():
        at = int(np.argmax(overlap))
        text = rows["example_id"][int(order[at])]
        raise MechError(f"weights file {name}: example {text} has two weights at update {first[at + 1]}", _NEXT)
    return ExampleWeights(example, rows["weight"].to_numpy().astype(np.float64)[order], first, last)


def _read_table(name: str, path: Path) -> pl.DataFrame:
    """The rows with all four columns, windows filled in."""
    types = {"example_id": pl.String, "weight": pl.Float64, "first_update": pl.Int64, "last_update": pl.Int64}
    try:
        rows = pl.read_csv(path, schema_overrides=types) if path.suffix == ".csv" else pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise MechError(f"weights file {name} cannot be read: {' '.join(str(error).split())[:200]}", _NEXT) from error
    if (missing := _NEEDED - set(rows.columns)) or (unknown := set(rows.columns) - _NEEDED - _OPTIONAL):
        raise MechError(
            f"weights file {name}: columns {', '.join(sorted(missing or unknown))} are missing or unknown", _NEXT
        )
    try:
        rows = rows.cast({column: types[column] for column in rows.columns})
    except pl.exceptions.PolarsError as error:
        raise MechError(f"weights file {name}: {' '.join(str(error).split())[:200]}", _NEXT) from error
    if len(rows) == 0 or rows["example_id"].null_count() or rows["weight"].null_count():
        raise MechError(f"weights file {name} has no rows, or rows without example_id or weight", _NEXT)
    for column, default in (("first_update", 0), ("last_update", LAST)):
        filled = pl.col(column).fill_null(default) if column in rows.columns else pl.lit(default, pl.Int64)
        rows = rows.with_columns(filled.alias(column))
    return rows


def _number(name: str, text: str) -> int:
    try:
        if len(text) == 16:
            return int(text, 16)
    except ValueError:
        pass
    raise MechError(f"weights file {name}: {text!r} is no example id (16 hexadecimal digits)", _NEXT)
