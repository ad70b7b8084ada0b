"""Attribution tables at size: bytes a row, and what "the top 20" costs, before and after compaction.

`influence` has (updates × batch) rows for each (mechanism, step): the same examples in the same order for every target,
values with heavy tails in float32, whose mantissa is noise that nothing compresses (about 3.3 bytes a row). `ledger` has
(window × batch × components) rows and two values. Rows are made one commit at a time, so memory does not grow with them.
"""

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from store_measure import Result, Say, cell_rows, query_milliseconds

from mech_pipeline.progress import Progress
from mech_pipeline.store import delta
from mech_pipeline.store.care.maintain import compact_runs
from mech_pipeline.store.reading import connect
from mech_pipeline.store.store import Store
from mech_pipeline.store.tables.all import ADJOINT, EVERYTHING, TABLES

BATCH, COMPONENTS, WINDOW = 32, 25, 40
_MECHANISMS = ("induction_copy_advantage", "prefix_matching", "previous_token", "loss")
_SMALL_ROWS, _LARGE_ROWS = 10_000_000, 100_000_000
_SMALL_MILLISECONDS, _LARGE_MILLISECONDS, _BYTES_A_ROW = 50, 300, 5
_ROWS_A_COMMIT = 500_000
_FIRST_STEP = 100


@dataclass(frozen=True)
class Shape:
    """How rows of `influence` are spread.

    Attributes:
        pool: distinct examples.
        updates: updates a target's rows cover, `BATCH` examples each.
        targets: (mechanism, step) pairs of one run.
    """

    name: str
    pool: int
    updates: int
    targets: int
    runs: int

    @property
    def rows(self) -> int:
        """In all runs."""
        return self.runs * self.targets * self.updates * BATCH


def shape_of(rows: int, run_rows: int) -> Shape:
    """1,400 updates on a pool of 32,768, in runs of about `run_rows`; fewer updates where there are few rows."""
    updates = min(1400, max(1, rows // (BATCH * 4)))
    runs = max(1, round(rows / run_rows))
    return Shape("pool of 32,768", 32_768, updates, max(1, -(-rows // (runs * updates * BATCH))), runs)


def wide_shape(rows: int) -> Shape:
    """Every example once in each of 100 targets: 100,000 examples where there are 10^7 rows."""
    updates = max(1, rows // 100 // BATCH)
    return Shape("distinct examples", updates * BATCH, updates, 100, 1)


def measure_influence(folder: Path, shape: Shape, repetitions: int, say: Say) -> list[Result]:
    """Writes, compacts and queries one shape."""
    part, store = f"influence, {shape.rows:,} rows, {shape.name}", Store(folder / "store")
    began = time.perf_counter()
    progress, done = Progress(say, f"write {part}", shape.rows, "rows"), 0
    for run in range(shape.runs):
        for rows in _influence(shape, run):
            replace = {name: rows[name].unique().to_pylist() for name in ("run", "mechanism", "step")}
            store.write("influence", rows, replace=replace)
            done += rows.num_rows
            progress(done)
    seconds = time.perf_counter() - began
    results = [Result(part, "write", seconds / shape.rows * 1e6, "s per million rows")]
    before = _bytes_a_row(store, "influence")
    if shape.rows <= _SMALL_ROWS * 2:
        results += _ask(store, part + ", not compacted", repetitions, None)
    began = time.perf_counter()
    _finish(store, [_run(number) for number in range(shape.runs)], say)
    seconds = time.perf_counter() - began
    results.append(Result(part, "compact", seconds / shape.rows * 1e6, "s per million rows"))
    results.append(Result(part, "size, not compacted", before, "bytes/row", None))
    after = _bytes_a_row(store, "influence")
    results.append(Result(part, "size, compacted", after, "bytes/row", _BYTES_A_ROW, after / before, "not compacted"))
    return results + _ask(store, part, repetitions, _limit(shape.rows))


def measure_ledger(folder: Path, rows: int, say: Say) -> list[Result]:
    """Bytes a row of `ledger`; its values are noise of two floats, about 7 bytes a row at the least."""
    store = Store(folder / "store")
    windows = max(1, rows // (WINDOW * BATCH * COMPONENTS))
    progress = Progress(say, "write ledger", windows, "windows")
    generator = np.random.default_rng(3)
    ids = _example_ids(32_768)
    for first in range(0, windows, 10):
        several = range(first, min(first + 10, windows))
        written = pa.concat_tables([_ledger_window(generator, ids, window) for window in several])
        steps = [WINDOW * (window + 1) for window in several]
        store.write("ledger", written, replace={"run": [_run(0)], "step": steps, "mechanism": [_MECHANISMS[0]]})
        progress(several[-1] + 1)
    before = _bytes_a_row(store, "ledger")
    _finish(store, [_run(0)], say)
    after = _bytes_a_row(store, "ledger")
    part = f"ledger, {windows * WINDOW * BATCH * COMPONENTS:,} rows"
    return [
        Result(part, "size, not compacted", before, "bytes/row"),
        Result(part, "size, compacted", after, "bytes/row", None, after / before, "not compacted"),
    ]


def _limit(rows: int) -> float | None:
    if rows <= _SMALL_ROWS * 1.01:
        return _SMALL_MILLISECONDS
    return _LARGE_MILLISECONDS if rows <= _LARGE_ROWS * 1.01 else None


def _ask(store: Store, part: str, repetitions: int, limit: float | None) -> list[Result]:
    """The questions people have, against a scan of all values."""
    asked = {
        "top 20": "select * from influence order by value desc limit 20",
        "bottom 20": "select * from influence order by value limit 20",
        "top 20 of one target": (
            f"select * from influence where mechanism = '{_MECHANISMS[0]}' and step = {_FIRST_STEP} "
            "order by value desc limit 20"
        ),
    }
    with connect(store.root, ["influence"]) as connection:
        scan = query_milliseconds(connection, "select sum(value) from influence", min(3, repetitions))
        results = [Result(part, "full scan of value", scan, "ms")]
        for what, sql in asked.items():
            took = query_milliseconds(connection, sql, repetitions)
            results.append(Result(part, what, took, "ms", limit, took / scan, "full scan"))
    return results


def _finish(store: Store, runs: list[str], say: Say) -> None:
    rows = cell_rows("runs", len(runs), {"status": "complete"}, {"run": runs})
    store.write("runs", rows, replace={"run": runs})
    compact_runs(store, runs, emit=say)


def _bytes_a_row(store: Store, table: str) -> float:
    found = delta.table_version(store.files, table, delta.latest_version(store.files, table))
    return sum(file.bytes for file in found.files) / sum(file.rows for file in found.files)


def _influence(shape: Shape, run: int) -> Iterator[pa.Table]:
    """One run, several steps of a mechanism at a time; examples shuffled anew in every epoch."""
    generator = np.random.default_rng(run)
    per_target = shape.updates * BATCH
    epochs = -(-per_target // shape.pool)
    order = np.concatenate([generator.permutation(shape.pool) for _ in range(epochs)])[:per_target]
    update = pa.array(np.repeat(np.arange(shape.updates, dtype=np.int32), BATCH))
    ids = _example_ids(shape.pool).take(pa.array(order))
    at_once = max(1, _ROWS_A_COMMIT // per_target)
    per_mechanism = -(-shape.targets // len(_MECHANISMS))
    for first_target in range(0, shape.targets, per_mechanism):
        mechanism = _MECHANISMS[first_target // per_mechanism]
        steps = [_FIRST_STEP + 10 * n for n in range(min(per_mechanism, shape.targets - first_target))]
        for first in range(0, len(steps), at_once):
            parts = []
            for step in steps[first : first + at_once]:
                fixed = {"run": _run(run), "step": step, "mechanism": mechanism, **_provenance(run, step, mechanism)}
                fixed |= {"method": ADJOINT, "component": EVERYTHING, "reliable": True, "weight": 1.0}
                varying = {"update_step": update, "example_id": ids, "value": _values(generator, per_target)}
                parts.append(_table("influence", per_target, fixed, varying))
            yield pa.concat_tables(parts)


def _ledger_window(generator: np.random.Generator, ids: pa.StringArray, window: int) -> pa.Table:
    count = WINDOW * BATCH * COMPONENTS
    step = WINDOW * (window + 1)
    update = np.repeat(np.arange(step - WINDOW, step, dtype=np.int32), BATCH * COMPONENTS)
    examples = np.repeat(generator.choice(len(ids), WINDOW * BATCH, replace=False), COMPONENTS)
    parts = pa.array([f"L{n // 13}H{n % 13 // 4}.{'QKVO'[n % 4]}" for n in range(COMPONENTS)])
    fixed = {"run": _run(0), "step": step, "mechanism": _MECHANISMS[0], "term": "example"}
    varying = {
        "update_step": pa.array(update),
        "example_id": ids.take(pa.array(examples)),
        "component": parts.take(pa.array(np.tile(np.arange(COMPONENTS), WINDOW * BATCH))),
        "value": _values(generator, count),
        "value_later": _values(generator, count),
    }
    return _table("ledger", count, {**fixed, **_provenance(0, step, _MECHANISMS[0])}, varying)


def _table(name: str, count: int, fixed: dict[str, object], varying: dict[str, pa.Array]) -> pa.Table:
    schema = TABLES[name].schema
    columns = [
        varying[field.name] if field.name in varying else pa.repeat(pa.scalar(fixed.get(field.name), field.type), count)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _values(generator: np.random.Generator, count: int) -> pa.Array:
    return pa.array((generator.standard_t(3, count) * 1e-3).astype(np.float32))


def _example_ids(count: int) -> pa.StringArray:
    return pa.array([hashlib.sha256(str(n).encode()).hexdigest()[:16] for n in range(count)])


def _provenance(run: int, step: int, mechanism: str) -> dict[str, object]:
    made_from = hashlib.sha256(f"{run} {step} {mechanism}".encode()).hexdigest()
    return {"input_fingerprint": made_from, "data_version": hashlib.sha256(made_from.encode()).hexdigest()}


def _run(number: int) -> str:
    return f"benchmark.base.s{number}"
