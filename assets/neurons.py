"""Group `attribution`: which tokens and contexts made the MLP's neurons."""

from collections.abc import Iterator

import dagster as dg

from mech_pipeline.assets.events import PartitionEvents, progress
from mech_pipeline.assets.partitions import BATCH, partition, run_step, split_keys
from mech_pipeline.assets.previews import rows_of_steps
from mech_pipeline.assets.training import checkpoint
from mech_pipeline.pipeline.analysis import neurons as stage
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.resources.store import StoreResource
from mech_pipeline.store.reading import reading


@dg.asset(
    group_name="attribution",
    partitions_def=run_step,
    deps=[checkpoint],
    kinds={"deltalake"},
    pool="gpu_analysis",
    code_version=stage.CODE_VERSION,
    backfill_policy=BATCH,
    output_required=False,
)
def neurons(context: dg.AssetExecutionContext, store: StoreResource) -> Iterator[dg.MaterializeResult]:
    """Tokens and positions that moved every neuron's weights over the window that ends here. Exact; not a prediction."""
    run, steps = split_keys(context.partition_keys)
    opened = OpenRun(store.open(), store.run_spec(run))
    asked = sorted(set(steps) & set(stage.windows(opened)))
    if not asked:
        context.log.info(f"the experiment asks for no neurons of run {run} at these steps")
        return
    keys = [partition(run, step) for step in asked]
    events = PartitionEvents(context, "neurons", stage.CODE_VERSION, {"checkpoint": lambda key: key}, keys)

    def on_steps(finished: list[int]) -> None:
        rows, numbers = rows_of_steps(opened.store, "neurons", run, finished), _numbers(opened, run)
        events.report_stored(
            opened.store, run, finished, {step: {**numbers.get(step, {}), **rows[step]} for step in finished}
        )

    waiting = {step for step, _ in stage.pending(opened, asked)}
    updates = sum(step - stage.windows(opened)[step] for step in waiting)
    stage.compute_neurons(opened, asked, on_steps, progress(context, f"neurons {run}", updates, "updates"))
    return
    yield


def _numbers(opened: OpenRun, run: str) -> dict[int, dict[str, float]]:
    """What Dagster draws as curves: {step: {label: value}}."""
    with reading(opened.store.root, ["neurons"]) as connection:
        rows = connection.execute(
            "select step, median(effective_tokens), max(abs(imbalance)) from neurons where run = ? and part = 'in' group by 1",
            [run],
        ).fetchall()
    return {step: {"median effective tokens": tokens, "largest imbalance": worst} for step, tokens, worst in rows}
