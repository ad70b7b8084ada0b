"""What it costs readers to check what they read: the same questions with the checks and without, in turn.

Questions are asked as the pipeline asks them (`reading`) and as users do (`query`), warm; opening is the first `connect` of
a new process, to all tables. Time of the processor is measured, which a busy machine disturbs least.
"""

import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from statistics import median
from time import process_time
from unittest.mock import patch

from store_measure import Result, Say
from store_reading import fill_all_tables

from mech_pipeline.store.care.maintain import maintain_store
from mech_pipeline.store.checked import Recorded
from mech_pipeline.store.reading import snapshot
from mech_pipeline.store.reading.query import query
from mech_pipeline.store.store import Store

_WARM_RATIO, _OPENING_MILLISECONDS = 1.05, 50.0
_REPEATED = 20
_OPEN = """
import sys
from time import process_time
sys.path.insert(0, sys.argv[2])
from store_checked import checks
from mech_pipeline.store.reading import connect
with checks(sys.argv[3] == "on"):
    began = process_time()
    connect(sys.argv[1]).close()
    print((process_time() - began) * 1e3)"""


def checks(on: bool) -> AbstractContextManager[object]:
    """A block in which readers check what they read, or do not."""
    if on:
        return nullcontext()

    def nothing(*arguments: object) -> None:
        """All is thought to be whole."""

    return patch.multiple(
        snapshot,
        recorded=lambda files, table: Recorded(files, table, (), -1),
        check_newest=nothing,
        check_log=nothing,
        check_data=nothing,
    )


def measure_checked(folder: Path, commits: int, repetitions: int, say: Say, root: Path | None = None) -> list[Result]:
    """Warm questions and openings of a store.

    Args:
        commits: in the busiest tables of a store that is made for this.
        root: a store that is there, instead.
    """
    store = Store(root or folder / "store")
    if root is None:
        fill_all_tables(store, commits, say)
    results = _costs(store, "checked readers", repetitions)
    if root is None:
        maintain_store(store, emit=say)
        results += _costs(store, "checked readers, maintained", repetitions)
    return results


def _costs(store: Store, part: str, repetitions: int) -> list[Result]:
    questions: dict[str, Callable[[], object]] = {
        "warm question of the pipeline": lambda: _ask(store),
        "warm `query`": lambda: query(store.root, "select count(*), sum(step) from checkpoints"),
    }
    results = []
    for what, act in questions.items():
        with_checks, without = _in_turn(lambda on, act=act: _spent(act, on), repetitions)
        ratio = with_checks / without
        results += [
            Result(part, what, with_checks, "ms of CPU", None, ratio, "unchecked"),
            Result(part, f"{what}, with checks / without", ratio, "", _WARM_RATIO),
        ]
    opened, plain = _in_turn(lambda on: _opening(store, on), repetitions)
    more = opened - plain
    what = "opening all tables in a new process"
    return [
        *results,
        Result(part, what, opened, "ms of CPU", None, opened / plain, "unchecked"),
        Result(part, f"{what}, more than unchecked", more, "ms of CPU", _OPENING_MILLISECONDS),
    ]


def _ask(store: Store) -> object:
    with store.reading("checkpoints") as connection:
        return connection.execute("select step, any_value(data_version) from checkpoints group by all").fetchall()


def _in_turn(measure: Callable[[bool], float], repetitions: int) -> tuple[float, float]:
    """Medians with checks and without."""
    pairs = [(measure(True), measure(False)) for _ in range(repetitions)]
    return median(a for a, _ in pairs), median(b for _, b in pairs)


def _spent(act: Callable[[], object], on: bool) -> float:
    """Milliseconds of the processor for one of many repetitions, after one that warms up."""
    with checks(on):
        act()
        began = process_time()
        for _ in range(_REPEATED):
            act()
        return (process_time() - began) * 1e3 / _REPEATED


def _opening(store: Store, on: bool) -> float:
    command = [sys.executable, "-c", _OPEN, store.root, str(Path(__file__).parent), "on" if on else "off"]
    return float(subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout)
