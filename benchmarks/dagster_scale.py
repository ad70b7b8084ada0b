"""Dagster with 60 runs of 200 checkpoints: `python benchmarks/dagster_scale.py [PART …]`, ten minutes; see benchmarks/README.md.

Nothing is trained: the events of the checkpoints are written as the assets write them, into the SQLite history of
dagster.yaml.
"""

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Annotated
from uuid import uuid4

import dagster as dg
import typer
from reporting import report
from store_measure import Result, Say

sys.path.append(str(Path(__file__).parents[1]))  # the browser and small experiment of the tests
from mech_pipeline.assets import partitions
from mech_pipeline.assets.history import spare_flushes
from mech_pipeline.assets.partitions import partition
from mech_pipeline.assets.registering import register
from mech_pipeline.spec.experiment import load_experiment
from tests.support.live import CHROMIUM, ROOT, user_interface
from tests.support.tiny import write_experiment, write_text

PARTS = ("register", "page")
ASSETS = ("checkpoint", "mechanism_values", "head_scores")
EVERY = 10


def project(at: Path, runs: int, steps: int) -> Path:
    """A project whose experiment has that many runs and checkpoints each; returns its file."""
    at.mkdir(parents=True, exist_ok=True)
    write_text(at)
    shutil.copy(ROOT / "dagster.yaml", at)
    shape = {"training": {"steps": EVERY * (steps - 1), "batch": 8}, "checkpoints": {"every": EVERY}}
    return write_experiment(
        at / "experiments" / "tiny.yaml",
        corpus={"files": str(at / "text" / "*.txt")},
        seeds=list(range(runs)),
        arms={"baseline": {}},
        **shape,
    )


@contextmanager
def history(at: Path) -> Iterator[dg.DagsterInstance]:
    """The history as dagster.yaml has it, in the project's folder."""
    before = Path.cwd()
    os.chdir(at)  # dagster.yaml names its folder relative to where Dagster runs
    try:
        with dg.DagsterInstance.from_config(str(at)) as instance:
            yield instance
    finally:
        os.chdir(before)


def filled(at: Path, runs: int, steps: int, say: Say) -> None:
    """Every partition of ASSETS materialized once."""
    specs = load_experiment(project(at, runs, steps)).runs()
    with history(at) as instance:
        register(instance, specs)
        for number, spec in enumerate(specs, start=1):
            for asset in ASSETS:
                materialize(instance, asset, spec.run, spec.checkpoint_steps())
            if number % 20 == 0:
                say(f"history: {number} of {runs} runs")


def materialize(instance: dg.DagsterInstance, asset: str, run: str, steps: Sequence[int]) -> None:
    """Events without a Dagster run, as small as events are; what they report is new each time."""
    for step in steps:
        tags = {"dagster/data_version": uuid4().hex, "dagster/data_version_is_user_provided": "true"}
        metadata = {"step": step, "value": 0.5}
        made = dg.AssetMaterialization(asset, partition=partition(run, step), metadata=metadata, tags=tags)
        instance.report_runless_asset_event(made)


def seconds(act: Callable[[], object]) -> float:
    """Wall time."""
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def measure_register(at: Path, runs: int, steps: int, turns: int) -> list[Result]:
    """What a launch adds to the grid before it begins."""
    taken = []
    for turn in range(turns):
        specs = load_experiment(project(at / str(turn), runs, steps)).runs()
        with history(at / str(turn)) as instance:
            taken.append(seconds(lambda instance=instance, specs=specs: register(instance, specs)))
            known = len(instance.get_dynamic_partitions(partitions.runs.name))
            assert known == runs, f"{known} of {runs} runs are registered"
            assert len(instance.get_dynamic_partitions(partitions.steps.name)) == steps
    return [Result("register", f"registers {runs} runs × {steps} steps", median(taken), "s")]


def measure_page(at: Path, runs: int, steps: int, turns: int, say: Say) -> list[Result]:
    """From the address to the partitions' status in a browser, with the daemons at work beside it."""
    what = f"partitions page, {runs} × {steps} partitions"
    if CHROMIUM is None:
        return [Result("page", f"{what}: not measured, no chromium on this machine", float("nan"), "s")]
    from playwright.sync_api import sync_playwright

    filled(at, runs, steps, say)
    last = load_experiment(at / "experiments" / "tiny.yaml").runs()[-1].run
    with user_interface(at) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])

        def opened() -> float:
            page = browser.new_page(viewport={"width": 1500, "height": 950})
            page.set_default_timeout(120_000)

            def look() -> None:
                page.goto(f"{address}/assets/mechanism_values?view=partitions")
                page.get_by_text(f"{runs * steps:,}").first.wait_for()  # all of them are counted
                page.get_by_text(f"{'.'.join(last.split('.')[:2])}.").first.wait_for()

            taken = seconds(look)
            page.close()
            return taken

        first = opened()
        again = [opened() for _ in range(turns)]
        browser.close()
    return [
        Result("page", f"{what}, the first after the webserver started", first, "s"),
        Result("page", what, median(again), "s", 3.0),
    ]


def main(
    parts: Annotated[list[str] | None, typer.Argument(help=f"any of {', '.join(PARTS)}; all by default")] = None,
    runs: Annotated[int, typer.Option(help="training runs")] = 60,
    steps: Annotated[int, typer.Option(help="checkpoints of each")] = 200,
    turns: Annotated[int, typer.Option(help="times that each is done; the median counts")] = 5,
    folder: Annotated[Path | None, typer.Option(help="where to work")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="also write the results here")] = None,
) -> None:
    """Measures Dagster's daemons and UI on this machine, with a history of a whole project."""
    spare_flushes()  # as the definitions do
    measures = {
        "register": lambda at, say: measure_register(at, runs, steps, turns),
        "page": lambda at, say: measure_page(at, runs, steps, turns, say),
    }
    report("Dagster at scale", PARTS, measures, parts, folder, json_file)


if __name__ == "__main__":
    typer.run(main)
