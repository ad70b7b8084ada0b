"""`mech plan`: what an experiment asks for and costs here, before anything is trained, and what of it is there."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mech_pipeline.commands.output import say, show
from mech_pipeline.plain_text import PlainTable

if TYPE_CHECKING:
    from mech_pipeline.project import Project
    from mech_pipeline.resolve import Resolved
    from mech_pipeline.store.store import Store

_HEADERS = (
    "run",
    "updates",
    "checkpoints",
    "training",
    "ledger",
    "influence, at most",
    "retraining, at most",
    "analysis and the rest",
    "disk",
    "now",
    "after",
)


def plan(file: Annotated[Path, typer.Argument(help="experiment file, for example experiments/induction.yaml")]) -> None:
    """Show runs, updates, time, memory and disk of an experiment before it runs, what waits for what, and what is current.

    Some updates of each shape of model are timed here. Times are those of runs one after another; a machine with several
    cores or devices works on several at once. Analysis and the other stages count as they took before, here or in the demo.
    """
    say(f"{file}: timing some updates")  # at once: the imports take seconds
    from mech_pipeline.mechanisms.chosen import CHOSEN
    from mech_pipeline.pipeline.estimate import estimates
    from mech_pipeline.pipeline.stages import reads_of
    from mech_pipeline.progress import format_seconds
    from mech_pipeline.project import find_project
    from mech_pipeline.resolve import read_experiment

    project = find_project()
    CHOSEN.use(project.mechanisms)
    experiment = read_experiment(file.absolute(), project.home, project.store)
    now, shown, whole = _now(experiment, project), PlainTable(*_HEADERS), [0.0] * 6
    found = estimates(experiment.runs(), _store(project))
    for spec, each in zip(experiment.runs(), found, strict=True):
        whole = [total + (part or 0.0) for total, part in zip(whole, [*each.seconds, each.disk_bytes], strict=True)]
        times = ["unknown" if part is None else format_seconds(part) if part else "" for part in each.seconds]
        updates = f"{each.cost.updates}" + (f" ({each.taken} taken over)" if each.taken else "")
        after = "; ".join(f"{', '.join(names)} of {run}" for run, names in reads_of(spec).items())
        size = _size(each.disk_bytes)
        shown.add_row(spec.run, updates, str(each.cost.checkpoints), *times, size, now[spec.run], after)
    hours = sum(whole[:5]) / 3600
    shown.add_row("all", "", "", *[format_seconds(each) if each else "" for each in whole[:5]], _size(whole[5]), "", "")
    show(shown)
    why = sorted({reason for each in found for reason in each.at_most})
    say(
        f"one after another: {'at most ' if why else ''}{hours:.2g} hours, {_size(whole[5])}"
        + (f" ({'; '.join(why)})" if why else "")
    )
    if missing := sorted({name for each in found for name in each.not_counted}):
        say(f"not counted, because no run of this store has been through: {', '.join(missing)}")
    say(f"memory of training, without activations: {_size(max(each.cost.state_bytes for each in found))} a run")
    for line in _measured(experiment, project):
        say(line)
    _say_budget(experiment, len(found), hours, whole[5] / 1e9)


def _say_budget(experiment: "Resolved", runs: int, hours: float, gigabytes: float) -> None:
    limits = {"runs": (runs, experiment.budget.runs), "hours": (hours, experiment.budget.hours)}
    limits["GB"] = gigabytes, experiment.budget.gigabytes
    said = [f"{value:.3g} of {limit:g} {name}" for name, (value, limit) in limits.items() if limit is not None]
    if said:
        over = any(limit is not None and value > limit for value, limit in limits.values())
        say(
            f"budget: {', '.join(said)}" + ("; over: it would be refused if nothing of it were trained" if over else "")
        )


def _measured(experiment: "Resolved", project: "Project") -> list[str]:
    """What stages of these runs took in this store."""
    from mech_pipeline.pipeline.stage_costs import unit_costs

    store = _store(project)
    if store is None:
        return []
    return [
        f"measured, {each.stage}: {each.cpu_seconds:.2g} s of CPU a cell, {_size(each.peak_bytes)} of memory"
        + (f", {_size(each.peak_gpu_bytes)} of the GPU's" if each.peak_gpu_bytes else "")
        for each in unit_costs(store, [spec.run for spec in experiment.runs()])
    ]


def _now(experiment: "Resolved", project: "Project") -> dict[str, str]:
    """How each run stands in the store."""
    from mech_pipeline.pipeline.plan import Plan
    from mech_pipeline.resolve import corpus_hashes

    runs, store = experiment.runs(), _store(project)
    if store is None:
        return {spec.run: "nothing yet" for spec in runs}
    looked = Plan(store, runs, corpus_hashes(runs), experiment)
    looked.look()
    waiting = {spec.run: looked.ready(spec.run) for spec in runs}
    return {
        run: f"next: {', '.join(f'{stage} ({len(cells)})' for stage, cells in stages.items())}"
        if stages
        else looked.standing(run)
        for run, stages in waiting.items()
    }


def _store(project: "Project") -> "Store | None":
    """The project's store; one that is not there is not made."""
    from mech_pipeline.store.files.open import open_files
    from mech_pipeline.store.layout import check_readable
    from mech_pipeline.store.store import Store

    return None if check_readable(open_files(project.store)) is None else Store(project.store)


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
