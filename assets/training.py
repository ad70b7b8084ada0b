"""Group `training`: runs, and the checkpoints that appear while they train."""

import time
from collections.abc import Iterator, Sequence
from functools import partial

import dagster as dg

from mech_pipeline.assets.asking import by_a_person, skip
from mech_pipeline.assets.events import PartitionEvents, emitter, stored_in
from mech_pipeline.assets.factory import described
from mech_pipeline.assets.launcher.torchrun import train_in_processes
from mech_pipeline.assets.partitions import BATCH, partition, split_keys
from mech_pipeline.assets.pictures import curves_of
from mech_pipeline.assets.previews import query_of, readable, rows_of_run
from mech_pipeline.assets.registering import register_steps
from mech_pipeline.assets.standing import standing_of, tell_standing
from mech_pipeline.pipeline.cells import combined_version
from mech_pipeline.pipeline.checkpoints import TRAINING_VERSION
from mech_pipeline.pipeline.grid import kept_steps, request_zoom
from mech_pipeline.pipeline.look import one_look
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.pipeline.stage_costs import measured
from mech_pipeline.pipeline.stages import output_of
from mech_pipeline.pipeline.training import fill
from mech_pipeline.pipeline.training.publisher import OnCheckpoint, Saved
from mech_pipeline.pipeline.training.stack import stack_of
from mech_pipeline.progress import Emit
from mech_pipeline.resources.store import StoreResource
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.store.store import Store

TOLD_AGAIN_AFTER = 30.0
"""Seconds between two words on how far a run is, while it trains."""
PLOTTED = {
    "loss_nats": "loss (nats)",
    "gradient_norm": "gradient norm (nats per unit weight)",
    "clip_factor": "clip factor",
    "learning_rate": "learning rate",
}
"""How the UI names a metric; a number per checkpoint becomes a curve there."""


@dg.asset(**described("checkpoint"), backfill_policy=BATCH, output_required=False)
def checkpoint(context: dg.AssetExecutionContext, store: StoreResource) -> Iterator[dg.MaterializeResult]:
    """A kept state: weights, moments, cursor; reported by `training_run` while it trains. Materializing it verifies it."""
    run, steps = split_keys(context.partition_keys)
    spec = store.run_spec(run)
    opened = OpenRun(store.open(), spec)
    kept = set(kept_steps(opened.store, spec))
    asked, steps = steps, [step for step in steps if step in kept]
    if by_a_person(context):
        others = [step for step in asked if step not in kept]
        skip(context, output_of("checkpoint"), run, others, f"run {run} keeps no state at this step")
    events = checkpoint_events(context, run, steps)
    for step in steps:
        opened.state(step)
        events.report(partition(run, step), opened.checkpoint_version(step), {"step": step})
    return
    yield


def checkpoint_events(context: dg.AssetExecutionContext, run: str, steps: list[int]) -> PartitionEvents:
    """Reporter for checkpoints, whoever makes them."""
    keys = [partition(run, step) for step in steps]
    return PartitionEvents(context, "checkpoint", TRAINING_VERSION, {"run_spec": lambda _key: run}, keys)


@dg.asset(**described("training_run"))
def training_run(context: dg.AssetExecutionContext, store: StoreResource) -> dg.MaterializeResult:
    """One training run: fills its planned checkpoints, resuming bit for bit. A minute for the demo."""
    return fill_checkpoints(context, store, context.partition_key)


def fill_checkpoints(context: dg.AssetExecutionContext, store: StoreResource, run: str) -> dg.MaterializeResult:
    """Trains what is missing of a run, reporting every checkpoint as it is published."""
    spec, opened = store.run_spec(run), store.open()

    def in_processes(opened: Store, spec: RunSpec, on_checkpoint: OnCheckpoint, emit: Emit) -> int:
        return train_in_processes(context, opened, spec, on_checkpoint, emit)

    train_one = in_processes if spec.training.processes > 1 else None
    tell_standing(context, opened, spec)
    reporter = partial(_reporter, context, opened)
    with measured(opened, "training", stack_of(opened, spec)) as work:
        made = work.cells = fill.fill_checkpoints(opened, spec, reporter, emitter(context), train_one)
    _report_unknown(context, opened, [store.run_spec(trained) for trained in dict.fromkeys([*made, run])])
    kept, steps = OpenRun(opened, spec), kept_steps(opened, spec)
    return dg.MaterializeResult(
        metadata={
            **standing_of(opened, spec),
            **_last_loss(opened, run),
            "checkpoints made": made.get(run, 0),
            "checkpoints": len(steps),
            "updates": spec.training.steps,
            **stored_in(opened, "checkpoints"),
            **rows_of_run(opened, "training_run", run),
        },
        data_version=dg.DataVersion(combined_version(kept.checkpoints[step] for step in steps)),
    )


def _last_loss(store: Store, run: str) -> dict[str, float]:
    """The mean over the last tenth of the updates, which the UI plots run by run."""
    with store.reading("training_metrics", of=[run]) as connection:
        ((loss,),) = connection.execute(
            "with mine as (select step, value from training_metrics where run = $run and metric = 'loss_nats') "
            "select avg(value) from mine where step >= 0.9 * (select max(step) from mine)",
            {"run": run},
        ).fetchall()
    return {} if loss is None else {"loss at the end (nats)": readable(loss)}


def _reporter(context: dg.AssetExecutionContext, store: Store, spec: RunSpec) -> OnCheckpoint:
    """The callback that reports a run's checkpoints."""
    known = kept_steps(store, spec)
    events = checkpoint_events(context, spec.run, list(known))
    told = time.monotonic()

    def on_checkpoint(saved: Saved) -> None:
        nonlocal told
        if saved.step not in known:
            register_steps(context.instance, [saved.step])  # an alarm has zoomed in
        metadata = {"step": saved.step, "fingerprint": saved.input_fingerprint, **stored_in(store, "checkpoints")}
        metadata |= query_of("checkpoint", spec.run, saved.step) | curves_of(spec.experiment)
        plotted = {PLOTTED[name]: readable(value) for name, value in saved.metrics.items()}
        events.report(partition(spec.run, saved.step), saved.data_version, metadata | plotted)
        if time.monotonic() - told > TOLD_AGAIN_AFTER:
            tell_standing(context, store, spec)
            told = time.monotonic()

    return on_checkpoint


def _report_unknown(context: dg.AssetExecutionContext, store: Store, specs: Sequence[RunSpec]) -> None:
    """The events of checkpoints that the UI does not know.

    A process killed between the store's commit and Dagster's event leaves such a checkpoint.
    """
    known = context.instance.get_materialized_partitions(dg.AssetKey("checkpoint"))
    with one_look([spec.run for spec in specs]):  # a stack has dozens: what is kept of all of them is asked once
        for spec in specs:
            if untold := [step for step in kept_steps(store, spec) if partition(spec.run, step) not in known]:
                kept, events = OpenRun(store, spec), checkpoint_events(context, spec.run, untold)
                with events.together():
                    for step in untold:
                        events.report(partition(spec.run, step), kept.checkpoint_version(step), {"step": step})


class Window(dg.Config):
    """A stretch of a run to look into; without one, the windows that were asked for before are completed."""

    first_step: int | None = None
    last_step: int | None = None
    every: int = 1


@dg.asset(**described("zoom"))
def zoom(context: dg.AssetExecutionContext, config: Window, store: StoreResource) -> dg.MaterializeResult:
    """Every state of a window of a run, replayed from the nearest checkpoint, bit for bit; results do not change.

    As long as training the window and the way to it, and 12 bytes per parameter and state.
    """
    run = context.partition_key
    if config.first_step is not None and config.last_step is not None:
        spec = store.run_spec(run)
        steps = request_zoom(store.open(), spec, config.first_step, config.last_step, config.every)
        register_steps(context.instance, steps)
    return fill_checkpoints(context, store, run)
