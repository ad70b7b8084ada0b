"""`mech status`: what of an experiment is not current."""

from pathlib import Path
from typing import Annotated

import typer

from mech_pipeline.commands.output import show
from mech_pipeline.plain_text import PlainTable


def status(file: Annotated[Path, typer.Argument(help="experiment file")]) -> None:
    """Show how far the runs of an experiment are, and what is not current, without computing anything.

    Stages are named that can work now; what follows from them is not known before they did.
    """
    from mech_pipeline.mechanisms.chosen import CHOSEN
    from mech_pipeline.pipeline.plan import Plan
    from mech_pipeline.pipeline.standing import standings
    from mech_pipeline.project import find_project
    from mech_pipeline.resolve import corpus_hashes, read_experiment
    from mech_pipeline.store.store import Store

    project = find_project()
    CHOSEN.use(project.mechanisms)
    experiment = read_experiment(file.absolute(), project.home, project.store)
    runs = experiment.runs()
    store = Store(project.store)
    plan = Plan(store, runs, corpus_hashes(runs), experiment)
    plan.look()
    table = PlainTable("run", "has", "ready and not current (cells)")
    has = standings(store, runs) | {experiment.experiment: ""}
    for name, there in has.items():
        ready = ", ".join(f"{stage} ({len(cells)})" for stage, cells in plan.ready(name).items())
        refused = [f"{stage} {reason}" for stage, reason in plan.refused(name).items()]
        table.add_row(name, there, "\n".join([ready or plan.standing(name), *refused]))
    show(table)
