"""Reading: one value among many runs, and opening a connection on a store with every table and long logs."""

import json
import subprocess
import sys
from pathlib import Path
from statistics import median

from store_measure import Result, Say, cell_rows, milliseconds, query_milliseconds

from mech_pipeline.progress import Progress
from mech_pipeline.store import delta
from mech_pipeline.store.care.maintain import compact_runs, maintain_store
from mech_pipeline.store.reading import connect
from mech_pipeline.store.store import Store
from mech_pipeline.store.tables.all import TABLES

_MECHANISMS = tuple(f"mechanism_{n}" for n in range(6))
_POINT_MILLISECONDS, _CONNECT_MILLISECONDS = 50, 150
_STEPS_A_COMMIT = 20
_BUSIEST, _OTHERS = ("checkpoints", "training_metrics"), 8
_ROWS_A_CELL = 8
_OPEN = """import json, sys, time
from mech_pipeline.store.reading import connect
def opened():
    began = time.perf_counter()
    connect(sys.argv[1]).close()
    return (time.perf_counter() - began) * 1e3
print(json.dumps([opened() for _ in range(6)]))"""


def measure_point_query(folder: Path, runs: int, steps: int, repetitions: int, say: Say) -> list[Result]:
    """One value of (run, step, mechanism), before and after compaction."""
    store, names = Store(folder / "store"), [f"benchmark.base.s{n}" for n in range(runs)]
    progress = Progress(say, "write mechanism_values", runs, "runs")
    for done, run in enumerate(names):
        for first in range(0, steps, _STEPS_A_COMMIT):
            at = list(range(first, min(first + _STEPS_A_COMMIT, steps)))
            keys = {"step": [step for step in at for _ in _MECHANISMS], "mechanism": [*_MECHANISMS] * len(at)}
            rows = cell_rows("mechanism_values", len(keys["step"]), {"run": run}, keys)
            store.write("mechanism_values", rows, replace={"run": [run], "step": at})
        progress(done + 1)
    before = _point_milliseconds(store, names, steps, repetitions)
    store.write("runs", cell_rows("runs", runs, {"status": "complete"}, {"run": names}), replace={"run": names})
    compact_runs(store, names)
    after = _point_milliseconds(store, names, steps, repetitions)
    part = f"point query, {runs} runs x {steps} steps"
    return [
        Result(part, "not compacted", before, "ms"),
        Result(part, "compacted", after, "ms", _POINT_MILLISECONDS, after / before, "not compacted"),
    ]


def _point_milliseconds(store: Store, runs: list[str], steps: int, repetitions: int) -> float:
    sql = "select value from mechanism_values where run = ? and step = ? and mechanism = ?"
    with connect(store.root) as connection:
        return query_milliseconds(connection, sql, repetitions, [runs[len(runs) // 2], steps // 2, _MECHANISMS[1]])


def measure_connect(folder: Path, commits: int, repetitions: int, say: Say) -> list[Result]:
    """`connect` to all tables, first in a new process (imports not counted) and again, before and after maintenance."""
    store = Store(folder / "store")
    fill_all_tables(store, commits, say)
    results = _connect_results(store, f"connect, {commits} commits", repetitions)
    maintain_store(store, emit=say)
    return results + _connect_results(store, f"connect, {commits} commits, maintained", repetitions)


def _connect_results(store: Store, part: str, repetitions: int) -> list[Result]:
    newest = [(name, delta.latest_version(store.files, name)) for name in TABLES]
    first, again = [], []
    for _ in range(repetitions):
        done = subprocess.run(
            [sys.executable, "-c", _OPEN, store.root], capture_output=True, text=True, check=True, timeout=300
        )
        took = json.loads(done.stdout)
        first.append(took[0])
        again.append(median(took[1:]))
    opened = milliseconds(
        lambda: [delta.open_table(store.files, name, version) for name, version in newest], repetitions
    )
    plain = "DeltaTable of every table, one by one"
    return [
        Result(part, "in a new process", median(first), "ms", _CONNECT_MILLISECONDS, median(first) / opened, plain),
        Result(part, "again", median(again), "ms", _CONNECT_MILLISECONDS, median(again) / opened, plain),
    ]


def fill_all_tables(store: Store, commits: int, say: Say, *, blob_bytes: int = 2_000) -> None:
    """Rows in every table; `commits` commits in the busiest ones, a few in the others; blobs where rows name them."""
    progress = Progress(say, "fill all tables", commits, "steps")
    runs = [f"benchmark.base.s{n}" for n in range(4)]
    for number in range(commits):
        for name, table in TABLES.items():
            if name in _BUSIEST or (number < min(_OTHERS, commits) and name != "runs"):
                _write_cell(store, table.name, runs[number % len(runs)], number, blob_bytes)
        progress(number + 1)
    store.write("runs", cell_rows("runs", len(runs), {"status": "complete"}, {"run": runs}), replace={"run": runs})


def _write_cell(store: Store, name: str, run: str, number: int, blob_bytes: int) -> None:
    """A few rows under one step; where the key has no step, under one name."""
    table = TABLES[name]
    texts = [column.name for column in table.all_columns if column.type == "string"]
    count = 1 if table.has_blobs or "mechanism" in table.keys[-1:] else _ROWS_A_CELL
    cell: tuple[str, object] = next(
        ((key, number) for key in ("step", "update_step", "first_step") if key in table.keys), ("", None)
    )
    if not cell[0]:
        cell = (table.item or next(key for key in reversed(table.keys) if key in texts), f"name {number}")
        count = 1
    fixed = {"run": run, cell[0]: cell[1]}
    if table.has_blobs:
        blob = store.put_blob(name, "content.bin", number.to_bytes(4, "big") * (blob_bytes // 4))
        fixed |= {"uri": blob.uri, "bytes": blob.bytes, "sha256": blob.sha256}
    free = next((key for key in reversed(table.keys) if key not in fixed), None)
    varying = {}
    if free and count > 1:
        varying = {free: [f"{free} {n}" if free in texts else n for n in range(count)]}
    rows = cell_rows(name, count, fixed, varying)
    replace = {key: [value] for key, value in (("run", run), cell) if key in table.keys}
    store.write(name, rows, replace=replace)
