"""Rows of `removals` and `retrainings`, one stack of retrainings in one commit each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mech_pipeline.attribution.retraining.removals import BASELINE, Removal
from mech_pipeline.pipeline.cells import Block, Cell, write
from mech_pipeline.pipeline.run import OpenRun

Columns = dict[str, list[Any]]


@dataclass(frozen=True)
class Retrained:
    """One finished retraining.

    Attributes:
        examples: places in the pool of what was left out.
        values: of every mechanism; none if it diverged.
    """

    removal: Removal
    examples: NDArray[np.int64]
    values: dict[str, float] | None
    made_from: str


def stored_baseline(run: OpenRun, step: int, made_from: str) -> dict[str, float] | None:
    """Mechanisms at the end of the retraining that left out nothing, if it is there and current."""
    with run.store.reading("retrainings") as connection:
        rows = connection.execute(
            "select mechanism, value from retrainings where run = ? and step = ? and removal = ? and input_fingerprint = ?",
            [run.spec.run, step, BASELINE, made_from],
        ).fetchall()
    return dict(rows) or None


def write_retrained(
    run: OpenRun, step: int, finished: Sequence[Retrained], baseline: dict[str, float], code_version: str
) -> None:
    """Publishes finished retrainings; the examples they left out come first."""
    lists = [_block(run, step, found, "removals", _listed(run, found)) for found in finished if not _is_baseline(found)]
    values = [_block(run, step, found, "retrainings", _valued(found, baseline)) for found in finished]
    for blocks in (lists, values):
        if blocks:
            write(run.store, blocks, code_version)


def _is_baseline(found: Retrained) -> bool:
    return found.removal.name == BASELINE


def _block(run: OpenRun, step: int, found: Retrained, table: str, columns: Columns) -> Block:
    return Block(Cell(table, run.spec.run, step, found.removal.name), columns, found.made_from)


def _listed(run: OpenRun, found: Retrained) -> Columns:
    return {"example_id": [str(run.tokens.example_ids[index]) for index in found.examples]}


def _valued(found: Retrained, baseline: dict[str, float]) -> Columns:
    names, values = list(baseline), found.values
    return {
        "fraction": [found.removal.fraction] * len(names),
        "n_removed": [len(found.examples)] * len(names),
        "mechanism": names,
        "value": [None if values is None else values[name] for name in names],
        "change": [None if values is None else values[name] - baseline[name] for name in names],
    }
