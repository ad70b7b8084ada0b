"""Launching an experiment from the UI: describes its runs, makes their tokens, and hands them to the sensor `work`.

`mech run` does the same and all that follows in processes of its own; this one is for the daemon.
"""

import dagster as dg
from pydantic import Field

from mech_pipeline.assets.events import PartitionEvents, emitter
from mech_pipeline.assets.registering import register
from mech_pipeline.assets.tags import EXPERIMENT_TAG
from mech_pipeline.errors import MechError
from mech_pipeline.pipeline.cells import combined_version, stored_versions
from mech_pipeline.pipeline.run_row import describe_run
from mech_pipeline.pipeline.tokens.artifacts import CODE_VERSION
from mech_pipeline.pipeline.tokens.probe_data import check_probe_data
from mech_pipeline.pipeline.tokens.tokens import load_tokens, prepare_tokens
from mech_pipeline.resources.store import ExperimentsResource, StoreResource, documents_of
from mech_pipeline.spec.experiment import Experiment
from mech_pipeline.spec.run import RunSpec

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
    """Describes the runs, makes their tokens and marks them as launched. Tokens take about ten seconds for 12 MB."""
    specs = selected(experiments.load(None, config.experiment), config)
    context.instance.add_run_tags(context.run_id, {EXPERIMENT_TAG: config.experiment})
    register(context.instance, specs)
    opened, ids = store.open(), [spec.run for spec in specs]
    described = PartitionEvents(context, "run_spec", "1", {}, ids)
    for spec in specs:
        documents, sha256 = documents_of(spec)
        described.report(spec.run, describe_run(opened, spec, sha256), {"arm": spec.arm, "seed": spec.seed})
        prepare_tokens(opened, spec, documents, emitter(context))
        check_probe_data(spec, load_tokens(opened, spec).probe)
    tokenised = PartitionEvents(context, "tokens", CODE_VERSION, {"run_spec": lambda key: key}, ids)
    for spec in specs:
        version = combined_version(stored_versions(opened, "tokens", spec.run).values())
        tokenised.report(spec.run, version, {"examples": spec.data.examples})
    context.instance.add_dynamic_partitions(LAUNCHED, ids)
    context.log.info(f"launched {', '.join(ids)}; the sensor `work` starts what they need, and shows what waits")


@dg.job(
    description="Trains and analyses an experiment: all its runs, or some arms and seeds. The sensor `work` must be on."
)
def launch_experiment() -> None:
    """The button."""
    ask_for_runs()


@dg.op
def withdraw_runs(context: dg.OpExecutionContext, config: Selection, experiments: ExperimentsResource) -> None:
    """Takes the runs back: nothing new is started for them. What is running goes on; stop it in the list of runs."""
    launched = set(context.instance.get_dynamic_partitions(LAUNCHED))
    for spec in selected(experiments.load(None, config.experiment), config):
        if spec.run in launched:
            context.instance.delete_dynamic_partition(LAUNCHED, spec.run)


@dg.job(description="The opposite of launch_experiment: nothing new is started for these runs; results stay.")
def withdraw_experiment() -> None:
    """The other button."""
    withdraw_runs()
