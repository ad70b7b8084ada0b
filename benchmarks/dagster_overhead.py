"""What Dagster adds to a whole experiment: `python benchmarks/dagster_overhead.py`, some twenty minutes; see benchmarks/README.md.

`mech run` with one worker against a bare script that calls the same stages (`bare_run.py`), each from an empty store and
from the start of its process to the end; alternately, medians. The rows of both must be the same.
"""

import os
import shutil
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

from mech_pipeline.store.reading.query import query

ROOT = Path(__file__).parents[1]
COMPARED = ("checkpoints", "mechanism_values", "head_scores", "gradients", "ledger", "influence", "formation")


def home_of(at: Path, experiment: Path, steps: int | None) -> Path:
    """A project with one experiment; fewer updates on request."""
    (at / "experiments").mkdir(parents=True)
    shutil.copy(ROOT / "dagster.yaml", at)
    content = yaml.safe_load(experiment.read_text())
    if steps is not None:
        content["training"]["steps"] = steps
    (at / "experiments" / experiment.name).write_text(yaml.safe_dump(content))
    return at


def seconds(home: Path, command: list[str]) -> float:
    """Wall time of a process that must succeed."""
    settings = {**os.environ, "MECH_HOME": str(home), "MECH_STORE": str(home / "store")}
    began = time.perf_counter()
    done = subprocess.run(command, env=settings, cwd=home, capture_output=True, text=True)
    taken = time.perf_counter() - began
    assert done.returncode == 0, f"{' '.join(command)} failed: {done.stderr[-2000:]}"
    return taken


def differing(one: Path, other: Path) -> list[str]:
    """Tables whose cells are not the same in two stores."""
    tables = [table for table in COMPARED if (one / "tables" / table).exists() or (other / "tables" / table).exists()]
    return [table for table in tables if _cells(one, table) != _cells(other, table)]


def _cells(root: Path, table: str) -> list[tuple[object, ...]]:
    return query(root, f"select distinct run, step, data_version from {table} order by all").rows()


def measure(at: Path, experiment: Path, steps: int | None, turns: int, say: Say) -> list[Result]:
    """The ratio, and how many tables differ."""
    taken: dict[str, list[float]] = {"bare": [], "mech run": []}
    different: set[str] = set()
    for turn in range(turns):
        stores = {}
        for name in taken if turn % 2 == 0 else reversed(taken):
            home = home_of(at / f"{name.replace(' ', '_')}{turn}", experiment, steps)
            file = home / "experiments" / experiment.name
            bare = [sys.executable, str(Path(__file__).parent / "bare_run.py"), str(file), str(home / "store")]
            with_dagster = [str(Path(sys.executable).parent / "mech"), "run", str(file), "--workers", "1"]
            taken[name].append(seconds(home, bare if name == "bare" else with_dagster))
            stores[name] = home / "store"
            say(f"turn {turn + 1} of {turns}, {name}: {taken[name][-1]:.1f} s")
        different |= set(differing(stores["bare"], stores["mech run"]))
        for store in stores.values():
            shutil.rmtree(store.parent)
    bare, ours = median(taken["bare"]), median(taken["mech run"])
    what = experiment.stem + ("" if steps is None else f", {steps} updates")
    return [
        Result(
            "overhead", f"what Dagster adds, {what}", 100 * (ours / bare - 1), "%", 10.0, ours / bare, "bare script"
        ),
        Result("overhead", "mech run, one worker", ours, "s"),
        Result("overhead", "bare script", bare, "s"),
        Result("overhead", f"of {len(COMPARED)} tables, with other cells", len(different), "tables", 0),
    ]


def main(
    experiment: Annotated[Path, typer.Option(help="what both do")] = ROOT / "experiments" / "induction.yaml",
    steps: Annotated[int | None, typer.Option(help="fewer updates than the experiment has")] = None,
    turns: Annotated[int, typer.Option(help="times that each is done; the median counts")] = 2,
    folder: Annotated[Path | None, typer.Option(help="where to work")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="also write the results here")] = None,
) -> None:
    """Measures what Dagster adds to an experiment on this machine."""
    measures = {"overhead": lambda at, say: measure(at, experiment.absolute(), steps, turns, say)}
    report("Dagster beside a bare script", ("overhead",), measures, None, folder, json_file)


if __name__ == "__main__":
    typer.run(main)
