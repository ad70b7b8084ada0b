"""How long commands that compute nothing take: `python benchmarks/startup.py [COMMAND …]`, a minute; see benchmarks/README.md.

Each is a new process on a small project whose run is described and not trained. The ratio is to a process that imports what
every command about the store needs at least, timed alternately: it says the same on slow and on fast machines.
"""

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Annotated

import typer
import yaml
from reporting import report
from store_measure import Result, Say

from mech_pipeline.pipeline.run_row import describe_run
from mech_pipeline.resolve import corpus_hashes, read_experiment
from mech_pipeline.store.store import Store

LEAST = [sys.executable, "-c", "import duckdb, deltalake"]
COMMANDS = {
    "help": "--help",
    "tables": "tables",
    "sql": "sql 'select 1'",
    "history": "history runs",
    "verify": "verify",
    "warehouse": "warehouse",
    "status": "status experiments/startup.yaml",
}
TARGET_SECONDS = 1.5
EXPERIMENT = {
    "experiment": "startup",
    "corpus": {"files": "text/*.txt"},
    "mechanisms": ["induction_copy_advantage"],
    "formation": [{"mechanism": "induction_copy_advantage", "threshold": 1.0}],
}


def project(home: Path) -> None:
    """A project folder with one experiment, a little text, and a store that knows the run."""
    for folder in ("text", "experiments"):
        (home / folder).mkdir()
    (home / "dagster.yaml").touch()
    (home / "text" / "a.txt").write_text("some text")
    file = home / "experiments" / "startup.yaml"
    file.write_text(yaml.safe_dump(EXPERIMENT))
    runs = read_experiment(file, home).runs()
    for spec in runs:
        describe_run(Store(str(home / "store")), spec, corpus_hashes(runs)[spec.run])


def seconds(command: list[str], home: Path) -> float:
    """Wall time of one process."""
    environment = {**os.environ, "MECH_HOME": str(home), "MECH_STORE": str(home / "store")}
    began = time.perf_counter()
    subprocess.run(command, cwd=home, env=environment, check=True, capture_output=True)
    return time.perf_counter() - began


def measure(name: str, home: Path, turns: int, say: Say) -> list[Result]:
    """Median of a command and of the least there is, in turns; the first turn warms the file cache and does not count."""
    project(home)
    command = [sys.executable, "-m", "mech_pipeline.commands.app", *shlex.split(COMMANDS[name])]
    say(f"{name}: {turns} turns")
    taken = [(seconds(command, home), seconds(LEAST, home)) for _ in range(turns + 1)][1:]
    ours, least = (median(column) for column in zip(*taken, strict=True))
    what = f"mech {COMMANDS[name]}"
    return [Result(name, what, ours, "s", TARGET_SECONDS, ours / least, "import duckdb, deltalake")]


def main(
    parts: Annotated[list[str] | None, typer.Argument(help=f"commands, of {', '.join(COMMANDS)}; default: all")] = None,
    turns: Annotated[int, typer.Option(help="times that each is started", min=1)] = 5,
    folder: Annotated[
        Path | None, typer.Option(help="where the projects are made; default: a temporary folder")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="also write the numbers here")] = None,
) -> None:
    """Starts every command several times."""
    measures = {
        name: lambda at, say, name=name: measure(name, at, turns, say)  # type: ignore[misc]
        for name in COMMANDS
    }
    report("Commands that compute nothing", list(COMMANDS), measures, parts, folder, json_file)


if __name__ == "__main__":
    typer.run(main)
