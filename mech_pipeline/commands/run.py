"""`mech run`: compute what of an experiment is not current."""

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mech_pipeline.commands import completing
from mech_pipeline.commands.output import encoding, say
from mech_pipeline.commands.progress import progress_lines
from mech_pipeline.errors import MechError, did_you_mean
from mech_pipeline.importing import without_looking_for_garbage
from mech_pipeline.stopping import promise

if TYPE_CHECKING:
    from mech_pipeline.spec.run import RunSpec
    from mech_pipeline.store.store import Store


def run(
    file: Annotated[Path, typer.Argument(help="experiment file, for example experiments/induction.yaml")],
    workers: Annotated[
        int, typer.Option(help="processes at a time; default: one per CPU core, at most one per run")
    ] = 0,
    release: Annotated[
        list[str] | None,
        typer.Option(
            help="a run that an alarm holds (`mech status` says which): it trains on", autocompletion=completing.runs
        ),
    ] = None,
) -> None:
    """Compute whatever of an experiment is not current, then print what was found and where.

    Nothing is computed twice: run it again after a change, a crash or Ctrl-C, and only the rest is done.
    """
    began = time.monotonic()
    say(f"{file}: reading")  # at once: the imports take seconds
    promise("stopped; what was finished is kept, run the same command to continue")
    from mech_pipeline.assets.launcher.processes import warm_up
    from mech_pipeline.project import find_project

    project = find_project()
    if not Path(project.store, "reports").is_dir():
        warm_up()  # a first run surely has work for workers; a later one may not
    from mech_pipeline.mechanisms.chosen import CHOSEN
    from mech_pipeline.resolve import read_experiment

    CHOSEN.use(project.mechanisms)
    file = file.absolute()
    experiment = read_experiment(file, project.home, project.store)
    with without_looking_for_garbage():
        from mech_pipeline.assets.launcher.launch import Launch
        from mech_pipeline.store.store import Store

    for name in release or ():
        _release(Store(project.store), experiment.runs(), name)
    processes = workers or min(os.cpu_count() or 1, len(experiment.runs()))
    with progress_lines() as emit:
        launch = Launch(experiment, file, project, Store(project.store), emit, processes)
        if launch.is_current():
            emit(f"{experiment.experiment}: nothing to recompute, everything is current")
            launch.tidy()
        else:
            if experiment.budget.limits_work:
                from mech_pipeline.pipeline.estimate import check_budget

                check_budget(experiment.budget, Store(project.store), experiment.runs())
            emit(
                f"{experiment.experiment}: {len(experiment.runs())} runs, {processes} processes, store {project.store}"
            )
            launch.run()
    from mech_pipeline.reports.summary import summary

    say(summary(project.store, experiment, project.local_folder, encoding()))
    say(f"\ndone in {time.monotonic() - began:.0f} s")


def _release(store: "Store", runs: "tuple[RunSpec, ...]", name: str) -> None:
    from mech_pipeline.pipeline.holds import release

    named = {spec.run: spec for spec in runs}
    if name not in named:
        raise MechError(
            f"run {name} is not of this experiment", f"{did_you_mean(name, named)}`mech status FILE` lists its runs"
        )
    hold = release(store, named[name])
    say(f"{name}: released, it goes on from step {hold.step:,}")
