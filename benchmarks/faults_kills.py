"""`mech run` killed with signal 9 at random moments: its worker, itself, its fork server, all of them.

One small experiment is started again and again, each time killed somewhere between its first and its last second, until
it was killed four times or had nothing left to do; then it may end. What is in its store must be what an undisturbed
launch makes. A launch whose worker or fork server was killed must go on by itself, and end: one that has said nothing for a
minute and twice the time of an undisturbed one hangs. And after the last launch no place in a pool is taken, no temporary
folder and no process is left.

`killed_causes` does the same to a programme whose arms wait for a baseline, choose by what was measured of it, and branch.
"""

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import yaml
from faults_frame import Outcome, Trial
from store_measure import Say

from mech_pipeline.progress import Progress
from mech_pipeline.store.reading.query import query

_MECH = [sys.executable, "-m", "mech_pipeline.commands.app"]
_AT_ONCE = 4
_SILENT = 60.0
"""Seconds that a launch may say nothing, beyond twice what an undisturbed one takes: the machine may be busy."""
EXPERIMENT: dict[str, Any] = {
    "experiment": "tiny",
    "corpus": {"files": "text/*.txt"},
    "tokenizer": {"vocabulary": 280},
    "data": {"context": 16, "examples": 64, "tile_tokens": [4, 8], "held_out": 0.2},
    "model": {"layers": 2, "heads": 2, "d_model": 16},
    "training": {"steps": 24, "batch": 8},
    "checkpoints": {"every": 6},
    "probe": {"tiled_examples": 4, "random_examples": 4},
    "mechanisms": ["induction_copy_advantage"],
    "detectors": [],
    "formation": [{"mechanism": "induction_copy_advantage", "threshold": 9.0, "sustain": 2}],
    "ledger": {"mechanisms": ["induction_copy_advantage"]},
    "influence": {"mechanisms": ["induction_copy_advantage"]},
    "seeds": [0, 1],
}
_CHOOSE = {"by": "influence", "share": 0.2, "at": 24}
CAUSES = EXPERIMENT | {
    "formation": [{"mechanism": "induction_copy_advantage", "threshold": -99.0, "sustain": 1}],
    "ledger": {},
    "influence": EXPERIMENT["influence"] | {"at": [24], "arms": ["baseline"], "seeds": "all"},
    "arms": {
        "baseline": {},
        "top": {"choose": _CHOOSE},
        "matched": {"choose": {"like": "top", "alike": ["kind", "length"]}},
        "late": {"choose": _CHOOSE | {"do": "duplicate", "window": [12, 20]}},  # branches from its baseline at 12
    },
}


@dataclass(frozen=True)
class _Programme:
    """An experiment, and the queries by which stores with it are compared: rows, and versions of what was made."""

    experiment: dict[str, Any]
    compared: tuple[str, ...]


_STATES = "select run, step, data_version from checkpoints order by all"
_RUNS = _Programme(
    EXPERIMENT,
    (
        _STATES,
        "select run, step, mechanism, value from mechanism_values order by all",
        "select run, step, mechanism, update_step, example_id, component, value from ledger order by all",
        "select run, step, mechanism, update_step, example_id, value from influence order by all",
        "select run, mechanism, step, lower, upper, censored from formation order by all",
    ),
)
_MADE_OF_CAUSES = (
    *("mechanism_values", "formation", "influence", "choices", "choice_balance"),
    *("arms", "comparisons", "predictions", "causal_measures"),
)
_CAUSES = _Programme(CAUSES, (_STATES, *(f"select * from {table} order by all" for table in _MADE_OF_CAUSES)))


def kills(folder: Path, count: int, chance: Random, say: Say) -> Iterator[Trial]:
    """Kills launches, in turn of each kind, and looks at what their experiments come to."""
    return _kills(_RUNS, folder, count, chance, say)


def killed_causes(folder: Path, count: int, chance: Random, say: Say) -> Iterator[Trial]:
    """Kills launches of a programme whose arms choose by what was measured."""
    return _kills(_CAUSES, folder, count, chance, say)


def _kills(programme: _Programme, folder: Path, count: int, chance: Random, say: Say) -> Iterator[Trial]:
    reference = _project(folder / "reference", programme)
    began = time.monotonic()
    _wait(_start(reference), 600)
    lasts = time.monotonic() - began
    truth = _results(reference, programme)
    if empty := [sql for sql, rows in zip(programme.compared, truth, strict=True) if rows == "[]"]:
        raise SystemExit(f"an undisturbed launch left nothing to compare: {empty[0]}; see {reference / 'output.txt'}")
    say(f"kills: an undisturbed launch takes {lasts:.0f} s")
    progress, done = Progress(lambda said: say(str(said)), "kill launches", count, "kills"), 0
    while done < count:
        home = _project(folder / f"k{done}", programme)
        trials = list(_kill_until_done(home, done, count, chance, lasts))
        final = _start(home)
        _wait_while_it_says(final, _SILENT + 2 * lasts)
        verdict = _verdict(home, final, programme, truth)
        for trial in trials:
            if verdict is None or trial.outcome == Outcome.TRACEBACK:
                yield trial
            else:
                yield replace(trial, outcome=verdict[0], detail=f"{trial.detail}; {verdict[1]}")
        shutil.rmtree(home)
        done += len(trials)
        progress(done)


def _kill_until_done(home: Path, done: int, count: int, chance: Random, lasts: float) -> Iterator[Trial]:
    """Launches of one experiment, each killed, until one ends before its time has come."""
    for number in range(done, min(count, done + _AT_ONCE)):
        trial = _kill(home, list(VICTIMS)[number % len(VICTIMS)], chance.random() * lasts, _SILENT + 2 * lasts)
        if trial is None:
            return
        yield trial


def _project(home: Path, programme: _Programme) -> Path:
    (home / "text").mkdir(parents=True)
    (home / "experiments").mkdir()
    (home / "tmp").mkdir()
    shutil.copy(Path(__file__).parents[1] / "dagster.yaml", home)
    for index in range(12):
        lines = [f"def function_{index}_{n}(value):\n    return value * {index * n} + {n}\n" for n in range(12)]
        (home / "text" / f"file_{index:02d}.txt").write_text("\n".join(lines))
    (home / "experiments" / "tiny.yaml").write_text(yaml.safe_dump(programme.experiment))
    return home


@dataclass(frozen=True)
class _Launch:
    process: subprocess.Popen[bytes]
    output: Path

    @property
    def said(self) -> str:
        return self.output.read_text(errors="replace")


def _start(home: Path) -> _Launch:
    output = home / "output.txt"
    environment = {k: v for k, v in os.environ.items() if k not in ("MECH_STORE", "DAGSTER_HOME")}
    environment |= {"MECH_HOME": str(home), "TMPDIR": str(home / "tmp"), "OMP_NUM_THREADS": "1"}
    command = [*_MECH, "run", "experiments/tiny.yaml", "--workers", "2"]
    with output.open("wb") as file:
        process = subprocess.Popen(command, cwd=home, env=environment, stdout=file, stderr=file, start_new_session=True)
    return _Launch(process, output)


def _wait(launch: _Launch, seconds: float) -> _Launch:
    with suppress(subprocess.TimeoutExpired):
        launch.process.wait(seconds)
    return launch


def _wait_while_it_says(launch: _Launch, silent: float) -> None:
    """Until it ends, or has said nothing for so many seconds."""
    said, since = 0, time.monotonic()
    while _wait(launch, 1).process.poll() is None and time.monotonic() - since < silent:
        if (size := launch.output.stat().st_size) != said:
            said, since = size, time.monotonic()


def _kill(home: Path, who: str, after: float, silent: float) -> Trial | None:
    """Starts a launch and kills a part of it; what it came to by itself. None: it ended before."""
    launch = _start(home)
    if _wait(launch, after).process.poll() is not None:
        return None
    detail, began = f"{who} after {after:.2f} s", time.monotonic()
    if not VICTIMS[who](launch.process.pid):
        detail += (
            ", which was not there: the launcher instead" if launch.process.poll() is None else ", which had ended"
        )
        VICTIMS["launcher"](launch.process.pid)
    _wait_while_it_says(launch, silent)
    if launch.process.poll() is None:
        os.killpg(launch.process.pid, signal.SIGKILL)
        launch.process.wait()
        return Trial(who, Outcome.TRACEBACK, f"{detail}: said nothing for {silent:.0f} s; {launch.said[-300:]}")
    ended = f"{detail}: ended with {launch.process.returncode} after {time.monotonic() - began:.1f} s"
    if "Traceback" in launch.said or "Error:" in launch.said:
        return Trial(who, Outcome.TRACEBACK, f"{ended}; {launch.said[-600:]}")
    return Trial(who, Outcome.SURVIVED, ended)


def _verdict(home: Path, final: _Launch, programme: _Programme, truth: list[str]) -> tuple[Outcome, str] | None:
    """What is wrong after a launch that nobody killed; none: nothing."""
    if final.process.poll() is None:
        os.killpg(final.process.pid, signal.SIGKILL)
        return Outcome.TRACEBACK, "the next launch hung"
    if final.process.returncode or "Traceback" in final.said:
        return Outcome.LOST, f"the next launch failed: {final.said[-600:]}"
    if (found := _results(home, programme)) != truth:
        both = zip(programme.compared, found, truth, strict=True)
        different = [sql.split(" from ")[1].split()[0] for sql, a, b in both if a != b]
        return Outcome.SILENT, f"other results in {', '.join(different)}"
    left = [
        *_places_taken(home),
        *(path.name for path in (home / "tmp").iterdir() if "inductor" not in path.name),
        *_processes(home),
    ]
    return (Outcome.LOST, f"left behind: {', '.join(left)}") if left else None


def _results(home: Path, programme: _Programme) -> list[str]:
    return [repr(query(home / "store", sql).rows()) for sql in programme.compared]


def _places_taken(home: Path) -> list[str]:
    for path in (home / ".dagster").rglob("index.db"):
        with closing(sqlite3.connect(path)) as connection:
            rows = connection.execute("select run_id from concurrency_slots where run_id is not null").fetchall()
            return [f"a place of run {run}" for (run,) in rows]
    return ["no history"]


def _processes(home: Path) -> list[str]:
    """Processes that work for this project, a few seconds after its last launch has ended."""
    for _ in range(20):
        found = [pid for pid in _all() if f"MECH_HOME={home}\0".encode() in _read(pid, "environ")]
        if not found:
            return []
        time.sleep(0.25)
    return [f"process {pid}" for pid in found]


def _all() -> list[int]:
    return [int(path.name) for path in Path("/proc").glob("[0-9]*")]


def _read(pid: int, name: str) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/{name}").read_bytes()
    return b""


def _children(pid: int) -> list[int]:
    return [int(n) for n in _read(pid, f"task/{pid}/children").split()] or [
        child for child in _all() if re.search(rb"\) [RSDT] (\d+)", _read(child, "stat")) and _parent(child) == pid
    ]


def _parent(pid: int) -> int:
    found = re.search(rb"\) \w (\d+)", _read(pid, "stat"))
    return int(found[1]) if found else 0


def _fork_servers(launcher: int) -> list[int]:
    return [pid for pid in _children(launcher) if b"forkserver" in _read(pid, "cmdline")]


def _first(pids: list[int]) -> bool:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            return True
    return False


def _group(launcher: int) -> bool:
    with suppress(ProcessLookupError):
        os.killpg(launcher, signal.SIGKILL)
        return True
    return False


VICTIMS: dict[str, Callable[[int], bool]] = {
    "worker": lambda launcher: _first([pid for server in _fork_servers(launcher) for pid in _children(server)]),
    "launcher": lambda launcher: _first([launcher]),
    "fork server": lambda launcher: _first(_fork_servers(launcher)),
    "group": _group,
}
