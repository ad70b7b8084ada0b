"""Group `attribution`: are the predictions right? Removals that are really retrained, and the score of the prediction."""

import base64
from collections.abc import Iterator
from typing import Any

import dagster as dg

from mech_pipeline.assets.events import PartitionEvents, emitter
from mech_pipeline.assets.partitions import BATCH, partition, run_step, split_keys
from mech_pipeline.assets.previews import rows_of_steps
from mech_pipeline.assets.training import checkpoint
from mech_pipeline.attribution.retraining.removals import asked_removals
from mech_pipeline.pipeline.retraining import lds as lds_stage
from mech_pipeline.pipeline.retraining import retraining as stage
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.reports.retraining.figures import draw_predictions
from mech_pipeline.resources.store import StoreResource
from mech_pipeline.store.reading import connect

_INPUTS = {"retrainings": ("checkpoint", "influence"), "lds": ("retrainings", "influence")}
_CODE = {"retrainings": stage.CODE_VERSION, "lds": lds_stage.CODE_VERSION}


@dg.multi_asset(
    specs=[
        dg.AssetSpec(
            "retrainings",
            deps=[checkpoint, "influence"],
            skippable=True,
            group_name="attribution",
            kinds={"deltalake"},
            code_version=stage.CODE_VERSION,
            description="What really happens without some examples: the run trained again up to this step, many times. "
            "Half the time of a training each on a core; a killed one goes on with what is missing.",
        ),
        dg.AssetSpec(
            "lds",
            deps=["retrainings", "influence"],
            skippable=True,
            group_name="attribution",
            kinds={"deltalake"},
            code_version=lds_stage.CODE_VERSION,
            description="How good influence predicts those removals: rank correlation with its interval (the linear "
            "datamodeling score), calibration, and what removing the top examples did. A dozen rows.",
        ),
    ],
    partitions_def=run_step,
    can_subset=False,
    backfill_policy=BATCH,
    pool="gpu_analysis",
)
def counterfactual_retraining(
    context: dg.AssetExecutionContext, store: StoreResource
) -> Iterator[dg.MaterializeResult]:
    """Retrains without random and without the most influential examples, and compares with what influence predicts."""
    run, steps = split_keys(context.partition_keys)
    opened = OpenRun(store.open(), store.run_spec(run))
    if not asked_removals(opened.spec.influence):
        context.log.info(f"the experiment asks for no retraining of run {run}")
        return
    if len(steps) > 1:  # a range of partitions: of a batch, the run's own target; a single step is meant as it is
        steps = [step for step in steps if step == stage.retraining_step(opened)]
    for step in steps:
        stage.compute_retrainings(opened, step, emitter(context))
        lds_stage.compute_lds(opened, step)
        for table, inputs in _INPUTS.items():
            rows = rows_of_steps(opened.store, table, run, [step])[step]
            # Only now: the inputs' newest versions are read here, and `retrainings` is an input of `lds`.
            to_inputs = {name: lambda key: key for name in inputs}
            events = PartitionEvents(context, table, _CODE[table], to_inputs, [partition(run, step)])
            events.report_stored(opened.store, run, [step], {step: {**_measures(opened, run, step, table), **rows}})
    return
    yield


_NUMBERS = {
    "retrainings": "select 'retrainings', count(distinct removal)::double from retrainings where run = ? and step = ? "
    "union all select 'change of ' || mechanism || ' at ' || fraction, avg(change) from retrainings "
    "where run = ? and step = ? and removal like 'random-%' and change is not null group by mechanism, fraction",
    "lds": "select mechanism || if(method = 'adjoint', '', ' ' || method) || ' ' || metric || ' at ' || fraction, value "
    "from lds where run = ? and step = ? union all "
    "select 'retrainings', max(n)::double from lds where run = ? and step = ?",
}


def _measures(opened: OpenRun, run: str, step: int, table: str) -> dict[str, Any]:
    with connect(opened.store.root, ["influence", "removals", "retrainings", "lds"]) as connection:
        numbers: dict[str, Any] = dict(connection.execute(_NUMBERS[table], [run, step] * 2).fetchall())
        if table == "lds":
            for name, png in draw_predictions(connection, opened.spec, step).items():
                picture = base64.b64encode(png).decode()
                numbers[name] = dg.MetadataValue.md(f"![predicted against measured](data:image/png;base64,{picture})")
    return numbers
