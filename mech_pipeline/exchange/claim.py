"""Which examples each update is said to have seen: the table `batches`, or a file of the same three columns."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mech_pipeline.data.listed_order import COLUMNS, listed
from mech_pipeline.data.order import Order
from mech_pipeline.errors import MechError
from mech_pipeline.pipeline.run import OpenRun


class Claim(Order):
    """Batches by update, as indices into a run's pool: an order that a trainer can follow.

    Args:
        run: whose pool the examples are of.
        frame: rows of `COLUMNS`, one per place in a batch.
        what: how to name it in an error.

    Raises:
        MechError: an example is not of the run's pool, or a place is named twice or left out.
    """

    def __init__(self, run: OpenRun, frame: pl.DataFrame, what: str) -> None:
        self._run, self._what = run, what
        batches = frame.sort("update_step", "position").group_by("update_step", maintain_order=True)
        self._ids = {int(step): rows for (step,), rows in batches}
        self._checked: Mapping[str, int] | None = None

    def at_step(self, step: int) -> NDArray[np.int64]:
        """The batch of an update, [example]; where the run's own example has the claimed tokens, it is that one.

        Raises:
            MechError: see the class.
        """
        rows = self._ids.get(step)
        if rows is None:
            raise MechError(
                f"{self._what} has no batch of update {step}", "name the steps that it has: --steps FROM:TO"
            )
        ids: Sequence[str] = rows["example_id"].to_list()
        if rows["position"].to_list() != list(range(len(ids))):
            raise MechError(
                f"{self._what}: the places of update {step} are not 0 to {len(ids) - 1}",
                "a row for each place of the batch",
            )
        own = self._run.trainer.batch(step).numpy()
        named = self._run.tokens.example_ids
        same = len(own) == len(ids)
        found = [own[k] if same and named[own[k]] == name else self._index(name, step) for k, name in enumerate(ids)]
        return np.array(found, dtype=np.int64)

    def _index(self, name: str, step: int) -> int:
        if self._checked is None:
            self._checked = {str(each): place for place, each in enumerate(self._run.tokens.example_ids)}
        if name not in self._checked:
            raise MechError(
                f"{self._what}: example {name} of update {step} is not in the pool of run {self._run.spec.run}",
                "name examples of the table `examples` that the run could see",
            )
        return self._checked[name]


def stored_claim(run: OpenRun) -> Claim:
    """What the table `batches` says.

    Raises:
        MechError: it says nothing of the run.
    """
    with run.store.reading("batches") as connection:
        named = ", ".join(COLUMNS)
        frame = connection.sql(f"select {named} from batches where run = $run", params={"run": run.spec.run}).pl()
    if not frame.height:
        raise MechError(
            f"run {run.spec.run} has no rows in `batches`", "`mech run` its experiment, or name --order FILE"
        )
    return Claim(run, frame, "table `batches`")


def read_claim(run: OpenRun, path: Path) -> Claim:
    """What a Parquet or CSV file says.

    Raises:
        MechError: it cannot be read, or lacks a column.
    """
    return Claim(run, listed(path).select(COLUMNS), str(path))
