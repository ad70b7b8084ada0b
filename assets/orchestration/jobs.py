"""One job for each stage, so that the list of runs in the UI says what runs."""

import dagster as dg

from mech_pipeline.assets.checks import try_run
from mech_pipeline.assets.partitions import runs
from mech_pipeline.assets.stages import by_step, worked_on
from mech_pipeline.pipeline.stage import Scope
from mech_pipeline.pipeline.stages import STAGES

STAGE_TAG, RUN_TAG, WORK_TAG, EXPERIMENT_TAG = "mech/stage", "mech/run", "mech/work", "mech/experiment"

STAGE_JOBS = {
    stage.name: dg.define_asset_job(
        f"{stage.name}_stage",
        selection=dg.AssetSelection.assets(*worked_on(stage)),
        description=stage.says,
        tags={STAGE_TAG: stage.name},
    )
    for stage in STAGES
    if stage.scope != Scope.EXPERIMENT
}

nightly_job = dg.define_asset_job(
    "nightly_backfill",
    selection=dg.AssetSelection.assets(*(name for stage in STAGES if by_step(stage) for name in worked_on(stage))),
    description="Everything of checkpoints that is missing or not current, in contiguous batches (schedule `nightly`).",
)

plan_job = dg.define_asset_job(
    "experiment_plan_job",
    selection=dg.AssetSelection.assets("experiment_plan"),
    description="What an experiment file asks for and costs (sensor `experiment_files`).",
)


@dg.job(partitions_def=runs)
def check_run() -> None:
    """Tries a run again: finite numbers, resuming bit for bit, no example leaning on its batch. Changes nothing."""
    try_run()
