"""`mech plan`: what an experiment asks for and costs here, before anything is trained, and what of it is there."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mech_pipeline.commands.output import say, show
from mech_pipeline.plain_text import PlainTable

if TYPE_CHECKING:
    from mech_pipeline.project import Project
    from mech_pipeline.resolve import Resolved

_HEADERS = (
    "run",
    "updates",
    "checkpoints",
    "training",
    "ledger",
    "influence, at most",
    "retraining, at most",
    "disk",
    "now",
)


def plan(file: Annotated[Path, typer.Argument(help="experiment file, for example experiments/induction.yaml")]) -> None:
    """Show runs, updates, time and disk of an experiment before it runs, and what of it is current.

    Some updates of each shape of model are timed here. Times are those of runs one after another; a machine with several
    cores or devices works on several at once. Analysis and cheap estimators come on top: seconds a checkpoint.
    """
    say(f"{file}: timing some updates")  # at once: the imports take seconds
    from mech_pipeline.mechanisms.chosen import CHOSEN
    from mech_pipeline.pipeline.attribution_cost import attribution_cost, disk_bytes
    from mech_pipeline.pipeline.cost import costs
    from mech_pipeline.progress import format_seconds
    from mech_pipeline.project import find_project
    from mech_pipeline.resolve import read_experiment

    project = find_project()
    CHOSEN.use(project.mechanisms)
    experiment = read_experiment(file.absolute(), project.home)
    now, shown, whole = _now(experiment, project), PlainTable(*_HEADERS), [0.0] * 5
    for spec, cost in zip(experiment.runs(), costs(experiment.runs()), strict=True):
        asked, size = attribution_cost(spec), disk_bytes(spec, cost)
        updates = [float(cost.updates), asked.ledger, asked.influence, asked.retraining]
        unit = None if cost.seconds is None else cost.seconds / cost.updates
        seconds = [None if unit is None else unit * each for each in updates]
        whole = [total + (each or 0.0) for total, each in zip(whole, [*seconds, size], strict=True)]
        times = ["unknown" if each is None else format_seconds(each) if each else "" for each in seconds]
        shown.add_row(spec.run, str(cost.updates), str(cost.checkpoints), *times, _size(size), now[spec.run])
    shown.add_row("all", "", "", *[format_seconds(each) if each else "" for each in whole[:4]], _size(whole[4]), "")
    show(shown)
    say(f"one after another: {sum(whole[:4]) / 3600:.2g} hours, {_size(whole[4])}")


def _now(experiment: "Resolved", project: "Project") -> dict[str, str]:
    """How each run stands in the store; a store that is not there is not made."""
    from mech_pipeline.pipeline.plan import Plan
    from mech_pipeline.resolve import corpus_hashes
    from mech_pipeline.store.files.open import open_files
    from mech_pipeline.store.layout import check_readable
    from mech_pipeline.store.store import Store

    runs = experiment.runs()
    if check_readable(open_files(project.store)) is None:
        return {spec.run: "nothing yet" for spec in runs}
    looked = Plan(Store(project.store), runs, corpus_hashes(runs), experiment)
    looked.look()
    waiting = {spec.run: looked.ready(spec.run) for spec in runs}
    return {
        run: f"next: {', '.join(f'{stage} ({len(cells)})' for stage, cells in stages.items())}"
        if stages
        else looked.standing(run)
        for run, stages in waiting.items()
    }


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
