"""Group `analysis`: what is to be seen in each checkpoint. One fused asset loads a checkpoint once."""

from collections.abc import Iterator

import dagster as dg

from mech_pipeline.assets.events import PartitionEvents, progress
from mech_pipeline.assets.partitions import BATCH, partition, run_step, split_keys
from mech_pipeline.assets.previews import query_of
from mech_pipeline.assets.training import checkpoint
from mech_pipeline.pipeline.analysis import analysis as stage
from mech_pipeline.pipeline.grid import kept_steps
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.resources.store import StoreResource
from mech_pipeline.store.reading import reading
from mech_pipeline.store.store import Store

_DESCRIPTIONS = {
    "mechanism_values": "Every mechanism at a checkpoint: a few rows, 20 ms.",
    "head_scores": "Every detector on every attention head at a checkpoint: 32 rows in the demo, 20 ms.",
    "gradients": "Gradient tensors of mechanisms and of the next batch, with their norms per component: 0.8 MB, 50 ms.",
}


@dg.multi_asset(
    specs=[
        dg.AssetSpec(
            name,
            deps=[checkpoint],
            skippable=True,
            group_name="analysis",
            description=_DESCRIPTIONS[name],
            code_version=stage.CODE_VERSIONS[name],
            kinds={"safetensors" if name == "gradients" else "deltalake"},
        )
        for name in stage.OUTPUTS
    ],
    partitions_def=run_step,
    can_subset=True,
    backfill_policy=BATCH,
    pool="gpu_analysis",
)
def checkpoint_analysis(context: dg.AssetExecutionContext, store: StoreResource) -> Iterator[dg.MaterializeResult]:
    """Loads each checkpoint once and computes what is asked for and not current."""
    run, steps = split_keys(context.partition_keys)
    opened = OpenRun(store.open(), store.run_spec(run))
    kept = set(kept_steps(opened.store, opened.spec))
    steps = [step for step in steps if step in kept]
    tables = [name for name in stage.OUTPUTS if dg.AssetKey(name) in context.selected_asset_keys]
    tables = [name for name in tables if getattr(opened.spec, _REQUEST[name])]
    keys = [partition(run, step) for step in steps]
    events = {
        name: PartitionEvents(context, name, stage.CODE_VERSIONS[name], {"checkpoint": lambda key: key}, keys)
        for name in tables
    }
    has_cells = {name: {step for step, _ in stage.wanted(opened, name, steps)} for name in tables}
    report = progress(context, f"analyse {run}", len(steps), "checkpoints")
    done = 0

    def on_steps(finished: list[int]) -> None:
        nonlocal done
        for name in tables:
            numbers = _numbers(opened.store, name, run)
            shown = {step: {**numbers.get(step, {}), **query_of(name, run, step)} for step in finished}
            made = [step for step in finished if step in has_cells[name]]  # no gradients at the steps of a zoom
            events[name].report_stored(opened.store, run, made, shown)
        done += len(finished)
        report(done)

    stage.analyse(opened, tables, steps, on_steps)
    return
    yield


_REQUEST = {"mechanism_values": "mechanisms", "head_scores": "detectors", "gradients": "gradients"}
"""Field of the spec that asks for each table: an empty one makes no partitions."""

_NUMBERS = {
    "mechanism_values": "select step, mechanism, value from mechanism_values where run = ?",
    "head_scores": "select step, 'best ' || detector, max(value) from head_scores where run = ? group by all",
    "gradients": "select step, 'norm of ' || gradient, sqrt(sum(value * value)) from gradients where run = ? group by all",
}


def _numbers(store: Store, table: str, run: str) -> dict[int, dict[str, float]]:
    """What Dagster draws as one curve per run: {step: {label: value}}."""
    with reading(store.root, [table]) as connection:
        rows = connection.execute(_NUMBERS[table], [run]).fetchall()
    numbers: dict[int, dict[str, float]] = {}
    for step, label, value in rows:
        numbers.setdefault(step, {})[label] = value
    return numbers
