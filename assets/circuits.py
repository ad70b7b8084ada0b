"""Group `analysis`: which edges of the model carry a mechanism, at the checkpoints that the experiment names."""

from collections.abc import Iterator

import dagster as dg

from mech_pipeline.assets.events import PartitionEvents, progress
from mech_pipeline.assets.partitions import BATCH, partition, run_step, split_keys
from mech_pipeline.assets.previews import rows_of_steps
from mech_pipeline.assets.training import checkpoint
from mech_pipeline.pipeline.analysis import circuits as stage
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.resources.store import StoreResource
from mech_pipeline.store.reading import reading


@dg.asset(
    group_name="analysis",
    partitions_def=run_step,
    deps=[checkpoint],
    kinds={"deltalake"},
    pool="gpu_analysis",
    code_version=stage.CODE_VERSION,
    backfill_policy=BATCH,
    output_required=False,
)
def circuits(context: dg.AssetExecutionContext, store: StoreResource) -> Iterator[dg.MaterializeResult]:
    """Edges that carry a mechanism (EAP with integrated gradients), their faithfulness, and random edges beside it. Seconds."""
    run, steps = split_keys(context.partition_keys)
    opened = OpenRun(store.open(), store.run_spec(run))
    asked = sorted(set(steps) & set(stage.circuit_steps(opened)))
    if not asked:
        context.log.info(f"the experiment asks for no circuits of run {run} at these steps")
        return
    keys = [partition(run, step) for step in asked]
    events = PartitionEvents(context, "circuits", stage.CODE_VERSION, {"checkpoint": lambda key: key}, keys)

    def on_steps(finished: list[int]) -> None:
        rows, numbers = rows_of_steps(opened.store, "circuits", run, finished), _numbers(opened, run)
        events.report_stored(
            opened.store, run, finished, {step: {**numbers.get(step, {}), **rows[step]} for step in finished}
        )

    waiting = {step for step, _ in stage.pending(opened, asked)}
    stage.compute_circuits(opened, asked, on_steps, progress(context, f"circuits {run}", len(waiting), "checkpoints"))
    return
    yield


def _numbers(opened: OpenRun, run: str) -> dict[int, dict[str, int]]:
    """What Dagster draws as curves: {step: {label: edges}}."""
    with reading(opened.store.root, ["circuits"]) as connection:
        rows = connection.execute(
            "select step, mechanism, count(*) filter (in_circuit) from circuits where run = ? group by all", [run]
        ).fetchall()
    numbers: dict[int, dict[str, int]] = {}
    for step, mechanism, count in rows:
        numbers.setdefault(step, {})[f"edges that carry 80 % of {mechanism}"] = count
    return numbers
