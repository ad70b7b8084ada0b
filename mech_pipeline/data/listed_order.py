"""An order that a table lists: which example each place of each update has, for runs that were trained elsewhere.

The table has the columns of `batches` (`update_step`, `position`, `example_id`), as Parquet or CSV, and perhaps `run`. Examples are
named by their ids, which are hashes of tokenizer and tokens: only the very same sequences have them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mech_pipeline.data.order import Order
from mech_pipeline.errors import MechError

COLUMNS = ("update_step", "position", "example_id")


class ListedOrder(Order):
    """See the module.

    Args:
        frame: as `read_batches` gives it.
        example_ids: of the pool.
        what: how to name the table in an error.

    Raises:
        MechError: an example is not of the pool.
    """

    def __init__(self, frame: pl.DataFrame, example_ids: np.ndarray, what: str) -> None:
        self._what = what
        places = {str(name): place for place, name in enumerate(example_ids)}
        ids: Sequence[str] = frame["example_id"].to_list()
        if unknown := next((name for name in ids if name not in places), None):
            raise MechError(
                f"{what}: example {unknown} is not in the pool that corpus, tokenizer and data make",
                "describe them as the run's own were, or leave imported.batches out",
            )
        steps, begins = np.unique(frame["update_step"].to_numpy(), return_index=True)
        rows = np.split(np.array([places[name] for name in ids], dtype=np.int64), begins[1:])
        self._rows: Mapping[int, NDArray[np.int64]] = dict(zip(steps.tolist(), rows, strict=True))

    def at_step(self, step: int) -> NDArray[np.int64]:
        """Indices into the pool of the examples of update `step`, [batch].

        Raises:
            MechError: the table does not tell.
        """
        if step not in self._rows:
            raise MechError(f"{self._what} has no batch of update {step}", "name a table that has it")
        return self._rows[step]


def listed(path: Path) -> pl.DataFrame:
    """Rows of a table of batches, as they stand there, with the columns of `COLUMNS` in their types, and `run` if it has one.

    Raises:
        MechError: it cannot be read, or lacks a column.
    """
    try:
        frame = (
            pl.read_parquet(path) if path.suffix.lower() == ".parquet" else pl.read_csv(path, infer_schema_length=None)
        )
    except FileNotFoundError as error:
        raise MechError(f"there is no file {path}", "name a .parquet or .csv file") from error
    except (pl.exceptions.PolarsError, OSError) as error:
        raise MechError(
            f"{path} cannot be read: {str(error).splitlines()[0]}", "give it as .parquet or .csv"
        ) from error
    if lacking := [name for name in COLUMNS if name not in frame.columns]:
        raise MechError(
            f"{path} has no column {', '.join(lacking)}; it has {', '.join(frame.columns)}",
            f'columns are {", ".join(COLUMNS)}, as `mech sql "select {", ".join(COLUMNS)} from batches"` gives them',
        )
    typed = frame.select(
        pl.col("update_step", "position").cast(pl.Int64, strict=False),
        pl.col("example_id").cast(pl.String),
        *(["run"] if "run" in frame.columns else []),
    )
    if any(typed.select(COLUMNS).null_count().row(0)):
        raise MechError(f"{path} has empty values, or steps and places that are no whole numbers", "fill in each row")
    return typed


def read_batches(path: Path, run: str) -> pl.DataFrame:
    """The batches of a run, sorted: updates one after another without a gap, all of one size.

    Args:
        run: whose rows are meant, where the table has those of several.

    Raises:
        MechError: see `listed`; or an update is missing, or a place is.
    """
    frame = listed(path)
    if "run" in frame.columns and frame["run"].n_unique() > 1:
        if run not in set(frame["run"]):
            there = ", ".join(sorted(set(frame["run"]))[:5])
            raise MechError(f"{path} has batches of {there}, and none of {run}", "keep the rows of one run")
        frame = frame.filter(pl.col("run") == run)
    frame = frame.select(COLUMNS).sort("update_step", "position")
    if not frame.height:
        raise MechError(f"{path} has no rows", "name a table with batches")
    steps, sizes = np.unique(frame["update_step"].to_numpy(), return_counts=True)
    gaps = np.setdiff1d(np.arange(steps[0], steps[-1] + 1), steps)
    if len(gaps):
        raise MechError(f"{path} has no batch of update {gaps[0]}", "name a table without gaps")
    expected = np.tile(np.arange(sizes[0]), len(steps))
    if len(set(sizes.tolist())) > 1 or not np.array_equal(frame["position"].to_numpy(), expected):
        odd = next((s for s, size in zip(steps.tolist(), sizes.tolist(), strict=True) if size != sizes[0]), steps[0])
        raise MechError(
            f"{path}: the places of update {odd} are not 0 to {sizes[0] - 1}", "a row for each place of each batch"
        )
    return frame
