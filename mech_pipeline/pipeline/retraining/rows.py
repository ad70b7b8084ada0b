"""Rows of `removals` and `retrainings`, one stack of retrainings in one commit each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mech_pipeline.attribution.retraining.removals import BASELINE, Removal
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.store.reading import reading
from mech_pipeline.store.rows import content_version
from mech_pipeline.store.tables.all import TABLES

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
    with reading(run.store.root, ["retrainings"]) as connection:
        rows = connection.execute(
            "select mechanism, value from retrainings where run = ? and step = ? and removal = ? and input_fingerprint = ?",
            [run.spec.run, step, BASELINE, made_from],
        ).fetchall()
    return dict(rows) or None


def write_retrained(
    run: OpenRun, step: int, finished: Sequence[Retrained], baseline: dict[str, float], code_version: str
) -> None:
    """Publishes finished retrainings; the examples they left out come first."""
    lists = [_listed(run, step, found) for found in finished if found.removal.name != BASELINE]
    values = [_valued(run, step, found, baseline) for found in finished]
    for table, parts in (("removals", lists), ("retrainings", values)):
        if not parts:
            continue
        columns = {name: [value for part in parts for value in part[name]] for name in parts[0]}
        names = list(dict.fromkeys(columns["removal"]))
        replace: Columns = {"run": [run.spec.run], "step": [step], "removal": names}
        run.store.write(table, columns, replace=replace, code_version=code_version)


def _listed(run: OpenRun, step: int, found: Retrained) -> Columns:
    columns: Columns = {"example_id": [str(run.tokens.example_ids[index]) for index in found.examples]}
    return _cell(run, step, found, "removals", columns)


def _valued(run: OpenRun, step: int, found: Retrained, baseline: dict[str, float]) -> Columns:
    names, values = list(baseline), found.values
    columns: Columns = {
        "fraction": [found.removal.fraction] * len(names),
        "n_removed": [len(found.examples)] * len(names),
        "mechanism": names,
        "value": [None if values is None else values[name] for name in names],
        "change": [None if values is None else values[name] - baseline[name] for name in names],
    }
    return _cell(run, step, found, "retrainings", columns)


def _cell(run: OpenRun, step: int, found: Retrained, table: str, columns: Columns) -> Columns:
    count = len(next(iter(columns.values())))
    keys = {"run": run.spec.run, "step": step, "removal": found.removal.name}
    whole: Columns = {name: [value] * count for name, value in keys.items()} | columns
    version = content_version(TABLES[table], whole)
    return whole | {"input_fingerprint": [found.made_from] * count, "data_version": [version] * count}
