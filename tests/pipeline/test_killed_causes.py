"""A programme whose arms choose by what was measured, killed with signal 9 again and again, ends as one that was not."""

import multiprocessing
import time
from pathlib import Path
from random import Random

import pytest

from mech_pipeline.store.reading.query import query
from mech_pipeline.store.store import Store
from tests.support import tiny
from tests.support.causes import compute, experiment_of

pytestmark = [pytest.mark.process, pytest.mark.slow]
KILLS = 4
TABLES = (
    "choices",
    "choice_balance",
    "formation",
    "influence",
    "arms",
    "comparisons",
    "predictions",
    "causal_measures",
)


def _compute(root: str) -> None:
    compute(Store(root), experiment_of())


def _started(root: Path) -> multiprocessing.process.BaseProcess:
    """From a process that has imported everything: moments fall into work, not into imports."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=_compute, args=(str(root),))
    process.start()
    return process


def _contents(root: Path) -> dict[str, list[tuple]]:
    """Every row with its versions, and the version of every kept state."""
    found = {table: sorted(query(str(root), f"select * from {table}").rows(), key=repr) for table in TABLES}
    states = query(str(root), "select run, step, data_version from checkpoints order by all").rows()
    return found | {"checkpoints": states}


def killed_and_resumed(home: Path, kills: int, chance: Random) -> list[int]:
    """Updates' states that were kept after each kill; the last number is that at the end. It must end as one not killed."""
    began = time.monotonic()
    undisturbed = _started(home / "undisturbed")
    undisturbed.join()
    seconds = time.monotonic() - began
    assert undisturbed.exitcode == 0
    kept = []
    for _ in range(kills):
        process = _started(home / "killed")
        process.join(chance.uniform(0, 2 * seconds / kills))
        process.kill()
        process.join()
        kept.append(_states_in(home / "killed"))
    last = _started(home / "killed")
    last.join()
    assert last.exitcode == 0
    expected, found = _contents(home / "undisturbed"), _contents(home / "killed")
    assert all(expected.values()), "there is something to compare"
    for table, rows in expected.items():
        assert found[table] == rows, table
    return [*kept, len(found["checkpoints"])]


def _states_in(root: Path) -> int:
    return len(list(root.glob("**/*.safetensors")))


def test_killed_again_and_again_it_chooses_and_compares_as_if_undisturbed(tmp_path, monkeypatch):
    tiny.write_text(tmp_path)
    monkeypatch.chdir(tmp_path)
    kept = killed_and_resumed(tmp_path, KILLS, Random(0))
    assert kept[0] < kept[-2], "work went on between kills"
