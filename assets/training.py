"""Group `training`: runs, and the checkpoints that appear while they train."""

from collections.abc import Iterator

import dagster as dg

from mech_pipeline.assets.events import PartitionEvents, emitter, stored_in
from mech_pipeline.assets.partitions import BATCH, by_run, partition, run_step, runs, split_keys
from mech_pipeline.assets.spec import run_spec, tokens
from mech_pipeline.assets.torchrun import train_in_processes
from mech_pipeline.pipeline import training as training_stage
from mech_pipeline.pipeline.batches import write_batches
from mech_pipeline.pipeline.publisher import Saved
from mech_pipeline.pipeline.run import TRAINING_VERSION, OpenRun
from mech_pipeline.pipeline.run_row import mark_status
from mech_pipeline.resources.store import StoreResource, documents_of
from mech_pipeline.store.currency import combined_version


@dg.asset(
    group_name="training",
    partitions_def=run_step,
    kinds={"safetensors"},
    code_version=TRAINING_VERSION,
    backfill_policy=BATCH,
    output_required=False,
    pool="gpu_analysis",
    deps=[dg.AssetDep(run_spec, partition_mapping=by_run)],
)
def checkpoint(context: dg.AssetExecutionContext, store: StoreResource) -> Iterator[dg.MaterializeResult]:
    """A kept state: weights, moments, cursor; reported by `training_run` while it trains. Materializing it verifies it."""
    run, steps = split_keys(context.partition_keys)
    spec = store.run_spec(run)
    opened = OpenRun(store.open(), spec)
    steps = [step for step in steps if step in set(spec.checkpoint_steps())]
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


@dg.asset(
    group_name="training",
    partitions_def=runs,
    deps=[run_spec, tokens],
    kinds={"pytorch"},
    code_version=TRAINING_VERSION,
    pool="gpu_train",
)
def training_run(context: dg.AssetExecutionContext, store: StoreResource) -> dg.MaterializeResult:
    """One training run: fills its planned checkpoints, resuming bit for bit. A minute for the demo."""
    spec, opened = store.run_spec(context.partition_key), store.open()
    _, sha256 = documents_of(spec)
    events = checkpoint_events(context, spec.run, list(spec.checkpoint_steps()))

    def on_checkpoint(saved: Saved) -> None:
        metadata = {"step": saved.step, "fingerprint": saved.input_fingerprint, **stored_in(opened, "checkpoints")}
        loss = {} if saved.loss is None else {"loss (nats)": saved.loss}
        events.report(partition(spec.run, saved.step), saved.data_version, metadata | loss)

    if training_stage.missing_checkpoints(opened, spec):
        mark_status(opened, spec, sha256, "training")
    if spec.training.processes > 1:
        made = train_in_processes(context, opened, spec, on_checkpoint, emitter(context))
    else:
        made = training_stage.train(opened, spec, on_checkpoint, emitter(context))
    write_batches(opened, spec)
    mark_status(opened, spec, sha256, "complete")
    run = OpenRun(opened, spec)
    # A process killed between the store's commit and Dagster's event left a checkpoint that the UI does not know.
    known = context.instance.get_materialized_partitions(dg.AssetKey("checkpoint"))
    for step in spec.checkpoint_steps():
        if partition(spec.run, step) not in known:
            events.report(partition(spec.run, step), run.checkpoint_version(step), {"step": step})
    kept = [run.checkpoints[step] for step in spec.checkpoint_steps()]
    return dg.MaterializeResult(
        metadata={
            "checkpoints made": made,
            "checkpoints": len(kept),
            "updates": spec.training.steps,
            **stored_in(opened, "checkpoints"),
        },
        data_version=dg.DataVersion(combined_version(kept)),
    )
