"""Many writers at once beside a reader that checks every snapshot it sees.

Every cell (run, step) holds `_ROWS` rows that carry the generation which wrote them, so a reader can tell a whole cell
from a mixture, and the log, which records the content of every commit, says what each cell must hold in the end.
"""

import multiprocessing
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import write_deltalake
from deltalake.exceptions import CommitFailedError
from store_measure import Result, Say, cell_rows

from mech_pipeline.store import delta
from mech_pipeline.store.reading import connect
from mech_pipeline.store.rows import check_rows, rows_sha256
from mech_pipeline.store.store import Store
from mech_pipeline.store.tables.all import TABLES

TABLE, _ROWS = "mechanism_values", 20
CELLS, SHARED_CELLS, _SHARED_EVERY = 25, 3, 10
_ATTEMPTS, _PATIENCE_SECONDS = 100, 600
PROCESSES = multiprocessing.get_context("forkserver")  # deltalake's threads do not survive a plain fork
PROCESSES.set_forkserver_preload(["store_writers"])
Write = Callable[[dict[str, Any], str, int], None]


def measure_writers(folder: Path, writers: int, replacements: int, say: Say) -> list[Result]:
    """Writers beside a checking reader; then writers alone, through the store and with plain `write_deltalake`."""
    seconds: dict[str, float] = {}
    for name, write in (("read", _store_writer), ("alone", _store_writer), ("plain", _plain_writer)):
        say(f"writers: {writers} processes x {replacements} replacements, {name}")
        race = _race(str(folder / name), write, writers, replacements, read=name == "read")
        seconds[name] = race.seconds
        if name == "read":
            seen, (wrong, lost, twice) = race.seen, _compare(folder / name, race.acknowledged)
    cells, rate = "cells", {name: writers * replacements / taken for name, taken in seconds.items()}
    ratio = rate["alone"] / rate["plain"]
    return [
        Result("writers", "replacements lost", lost, cells, 0),
        Result("writers", "replacements committed twice", twice, cells, 0),
        Result("writers", "cells wrong in the end", wrong, cells, 0),
        Result("writers", "wrong reads", seen["wrong"], cells, 0),
        Result("writers", "snapshots read", seen["snapshots"], "snapshots"),
        Result("writers", "cells read", seen["cells"], cells),
        Result("writers", "throughput beside the reader", rate["read"], "commits/s"),
        Result("writers", "throughput", rate["alone"], "commits/s", None, ratio, "plain write_deltalake"),
    ]


@dataclass(frozen=True)
class _Race:
    """What the writers acknowledged as (run, step, generation), and what the reader counted."""

    seconds: float
    acknowledged: list[tuple[str, int, int]]
    seen: Counter[str]


def _race(root: str, writer: Callable[[str], Write], writers: int, replacements: int, *, read: bool) -> _Race:
    writer(root)(cell("begin", 0, 0), "begin", 0)  # eight processes that create one table at once are another question
    ready, results, seen, stop = PROCESSES.Barrier(writers + 1), PROCESSES.Queue(), PROCESSES.Queue(), PROCESSES.Event()
    started = [
        PROCESSES.Process(target=_write_many, args=(root, writer, number, replacements, ready, results))
        for number in range(writers)
    ]
    if read:
        started.append(PROCESSES.Process(target=_read_many, args=(root, stop, seen)))
    for process in started:
        process.start()
    ready.wait(_PATIENCE_SECONDS)
    began = time.perf_counter()
    acknowledged = [ack for _ in range(writers) for ack in results.get(timeout=_PATIENCE_SECONDS)]
    seconds = time.perf_counter() - began
    stop.set()
    counts = seen.get(timeout=_PATIENCE_SECONDS) if read else Counter()
    for process in started:
        process.join()
    return _Race(seconds, acknowledged, counts)


def _write_many(
    root: str, writer: Callable[[str], Write], number: int, replacements: int, ready: Any, results: Any
) -> None:
    """Replaces cells of its own run in turn, and every tenth time a cell that all writers replace."""
    write, done = writer(root), []
    ready.wait(_PATIENCE_SECONDS)
    for n in range(replacements):
        shared = n % _SHARED_EVERY == _SHARED_EVERY - 1
        run, step = ("shared", n // _SHARED_EVERY % SHARED_CELLS) if shared else (f"w{number}", n % CELLS)
        generation = number * 1_000_000 + n
        write(cell(run, step, generation), run, step)
        done.append((run, step, generation))
    results.put(done)


def _store_writer(root: str) -> Write:
    store = Store(root)

    def write(rows: dict[str, Any], run: str, step: int) -> None:
        store.write(TABLE, rows, replace={"run": [run], "step": [step]})

    return write


def _plain_writer(root: str) -> Write:
    """What a careful user of deltalake would write: the same replacement, tried again when others were faster."""

    def write(rows: dict[str, Any], run: str, step: int) -> None:
        table, predicate = pa.table(rows, schema=TABLES[TABLE].schema), f"run = '{run}' and step = {step}"
        for attempt in range(_ATTEMPTS):
            try:
                return write_deltalake(root, table, mode="overwrite", predicate=predicate, partition_by=["run"])
            except CommitFailedError:
                time.sleep(random.random() * min(1.0, 0.02 * 2**attempt))
        raise RuntimeError(f"{_ATTEMPTS} attempts were not enough")

    return write


def cell(run: str, step: int, generation: int) -> dict[str, Any]:
    """The rows of one cell, all from one generation."""
    fixed = {"run": run, "step": step, "value": float(generation), "data_version": str(generation)}
    return cell_rows(TABLE, _ROWS, fixed, {"mechanism": [f"m{n:02d}" for n in range(_ROWS)]})


_CHECK = f"""select run, step, count(*), count(distinct mechanism), min(value), max(value), count(distinct data_version)
    from {TABLE} group by all"""


def read_cells(root: str | Path) -> tuple[dict[tuple[str, int], int], int]:
    """Generation of every cell of a new snapshot, and how many cells are mixtures, partial or duplicated."""
    with connect(root, [TABLE]) as connection:
        found = connection.execute(_CHECK).fetchall()
    wrong = sum(row[2:4] != (_ROWS, _ROWS) or row[4] != row[5] or row[6] != 1 for row in found)
    return {(run, step): int(value) for run, step, _, _, value, *_ in found}, wrong


def _read_many(root: str, stop: Any, seen: Any) -> None:
    """Besides whole cells: a writer's own cell never goes back to an older generation."""
    counts: Counter[str] = Counter(wrong=0, snapshots=0, cells=0)
    before: dict[tuple[str, int], int] = {}
    while not stop.is_set():
        now, wrong = read_cells(root)
        gone = [place for place, last in before.items() if place[0] != "shared" and now.get(place, -1) < last]
        counts.update(wrong=wrong + len(gone), snapshots=1, cells=len(now))
        before = now
    seen.put(counts)


def _compare(root: Path, acknowledged: list[tuple[str, int, int]]) -> tuple[int, int, int]:
    """(cells that do not hold what the log's last commit to them wrote, commits lost, commits made twice)."""
    store = Store(root)
    contents = {}
    for run, step, generation in acknowledged:
        written = check_rows(TABLES[TABLE], cell(run, step, generation))
        contents[rows_sha256(written)] = (run, step, generation)
    last: dict[tuple[str, int], int] = {}
    committed: Counter[str] = Counter()
    for version in delta.versions(store.files, TABLE):
        content = delta.commit_info(delta.commit_log(store.files, TABLE, version)).get("mech.content", "")
        if content in contents:
            run, step, generation = contents[content]
            last[run, step] = generation
            committed[content] += 1
    now, wrong = read_cells(root)
    wrong += sum(now.get(place) != generation for place, generation in last.items())
    return wrong, len(contents) - len(committed), sum(count > 1 for count in committed.values())
