"""Launching an experiment from the UI.

On a laptop, where Dagster's history is the project's own, the job does all of it as `mech run` does: its processes have
imported everything once, while each Dagster run that the daemon starts takes seconds to begin. With a history or runs
elsewhere (a server, a cluster), it describes the runs, makes their tokens, and hands them to the sensor `work`.
"""

import os
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from mech_pipeline.assets.events import PartitionEvents, emitter
from mech_pipeline.assets.history import is_own
from mech_pipeline.assets.launcher.launch import Launch
from mech_pipeline.assets.registering import register
from mech_pipeline.assets.tags import EXPERIMENT_TAG
from mech_pipeline.errors import MechError
from mech_pipeline.pipeline.cells import combined_version, stored_versions
from mech_pipeline.pipeline.estimate import check_budget
from mech_pipeline.pipeline.run_row import describe_run
from mech_pipeline.pipeline.tokens.artifacts import CODE_VERSION
from mech_pipeline.pipeline.tokens.probe_data import check_probe_data
from mech_pipeline.pipeline.tokens.tokens import load_tokens, prepare_tokens
from mech_pipeline.project import Project, find_mechanisms
from mech_pipeline.resolve import Resolved
from mech_pipeline.resources.store import ExperimentsResource, StoreResource, documents_of
from mech_pipeline.spec.experiment import Experiment
from mech_pipeline.spec.experiment_files import experiment_files, file_of, named_in
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.store.store import Store

LAUNCHED = "launched"
"""Name of the dynamic partitions that hold the ids of launched runs; no asset has them."""


class Selection(dg.Config):
    """Which runs of an experiment."""

    experiment: str = Field(description="the name in its file: `experiment: NAME`")
    arms: list[str] = Field([], description="only these arms; none: all")
    seeds: list[int] = Field([], description="only these seeds; none: all")


def selected(experiment: Experiment, selection: Selection) -> list[RunSpec]:
    """The runs.

    Raises:
        MechError: an arm or seed that the experiment does not have.
    """
    runs = experiment.runs()
    for what, asked, known in (
        ("arm", selection.arms, sorted({spec.arm for spec in runs})),
        ("seed", selection.seeds, sorted({spec.seed for spec in runs})),
    ):
        if unknown := [one for one in asked if one not in known]:
            raise MechError(
                f"experiment {experiment.experiment} has no {what} {unknown[0]!r}",
                f"it has {', '.join(map(str, known))}",
            )
    chosen = [
        spec
        for spec in runs
        if (not selection.arms or spec.arm in selection.arms) and (not selection.seeds or spec.seed in selection.seeds)
    ]
    if not chosen:
        raise MechError("no run has both such an arm and such a seed", "choose others")
    return chosen


@dg.op
def ask_for_runs(
    context: dg.OpExecutionContext, config: Selection, store: StoreResource, experiments: ExperimentsResource
) -> None:
    """Computes what of the runs is not current; on a server, tells the sensor `work` to."""
    experiment, opened = experiments.load(None, config.experiment), store.open()
    specs = selected(experiment, config)
    check_budget(experiment.budget, opened, experiment.runs())
    context.instance.add_run_tags(context.run_id, {EXPERIMENT_TAG: config.experiment})
    register(context.instance, specs)
    home = Path(store.home).absolute()
    if is_own(home, context.instance):
        file = file_of(config.experiment, Path(experiments.folder))
        compute(context, experiment, file, Project(home, store.root, find_mechanisms()), specs)
        context.instance.add_dynamic_partitions(LAUNCHED, [spec.run for spec in specs])
        return
    describe(context, opened, specs)
    context.instance.add_dynamic_partitions(LAUNCHED, [spec.run for spec in specs])
    context.log.info(f"launched {config.experiment}; the sensor `work` starts what it needs, and shows what waits")


def compute(
    context: dg.OpExecutionContext, experiment: Resolved, file: Path, project: Project, specs: list[RunSpec]
) -> None:
    """Everything of the runs that is not current, in processes of this one; each stage is a Dagster run of its own.

    Raises:
        MechError: a stage failed, or somebody else works on the experiment.
    """
    workers = min(os.cpu_count() or 1, len(specs))
    launch = Launch(experiment, file, project, Store(project.store), emitter(context), workers, only=specs)
    if launch.is_current():
        context.log.info(f"{experiment.experiment}: nothing to recompute, everything is current")
        launch.tidy()
    else:
        launch.run()


def describe(context: dg.OpExecutionContext, store: Store, specs: list[RunSpec]) -> None:
    """Descriptions and tokens of the runs, so that mistakes show before anything is started. Ten seconds for 12 MB."""
    ids = [spec.run for spec in specs]
    described = PartitionEvents(context, "run_spec", "1", {}, ids)
    for spec in specs:
        documents, sha256 = documents_of(spec)
        described.report(spec.run, describe_run(store, spec, sha256), {"arm": spec.arm, "seed": spec.seed})
        prepare_tokens(store, spec, documents, emitter(context))
        check_probe_data(spec, load_tokens(store, spec).probe)
    tokenised = PartitionEvents(context, "tokens", CODE_VERSION, {"run_spec": lambda key: key}, ids)
    for spec in specs:
        version = combined_version(stored_versions(store, "tokens", spec.run).values())
        tokenised.report(spec.run, version, {"examples": spec.data.examples})


@dg.op
def withdraw_runs(context: dg.OpExecutionContext, config: Selection, experiments: ExperimentsResource) -> None:
    """Takes the runs back: nothing new is started for them. What is running goes on; stop it in the list of runs."""
    launched = set(context.instance.get_dynamic_partitions(LAUNCHED))
    for spec in selected(experiments.load(None, config.experiment), config):
        if spec.run in launched:
            context.instance.delete_dynamic_partition(LAUNCHED, spec.run)


def launching_jobs(experiments: Path) -> list[dg.JobDefinition]:
    """The two buttons. Their Launchpad names the experiment whose file was edited last, as an example to change."""

    @dg.job(
        config=_prefilled("ask_for_runs", experiments),
        description="Trains and analyses an experiment: all its runs, or some arms and seeds, whatever of them is not "
        "current. On a server the sensor `work` must be on.",
    )
    def launch_experiment() -> None:
        """The button."""
        ask_for_runs()

    @dg.job(
        config=_prefilled("withdraw_runs", experiments),
        description="The opposite of launch_experiment: nothing new is started for these runs; results stay.",
    )
    def withdraw_experiment() -> None:
        """The other button."""
        withdraw_runs()

    return [launch_experiment, withdraw_experiment]


def _prefilled(op: str, experiments: Path) -> dict[str, Any]:
    """What a Launchpad holds at first."""
    selection = {"experiment": _newest(experiments), "arms": [], "seeds": []}
    return {"ops": {op: {"config": selection}}}


def _newest(experiments: Path) -> str:
    """The experiment in the file that was edited last; of a file that cannot be read, the file's own name."""
    files = sorted(experiment_files(experiments), key=lambda path: path.stat().st_mtime)
    return named_in(files[-1]) if files else "name"
