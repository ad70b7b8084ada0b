"""One job for each stage, so that the list of runs in the UI says what runs."""

import dagster as dg

from mech_pipeline.assets.checks import try_run
from mech_pipeline.assets.partitions import runs
from mech_pipeline.assets.stages import worked_on
from mech_pipeline.assets.tags import STAGE_TAG
from mech_pipeline.pipeline.stages import STAGES

_BESIDE = {"report": ("warehouse",)}
"""Assets of no stage that are made with one."""

STAGE_JOBS = {
    stage.name: dg.define_asset_job(
        f"{stage.name}_stage",
        selection=dg.AssetSelection.assets(*worked_on(stage), *_BESIDE.get(stage.name, ())),
        description=stage.says,
        tags={STAGE_TAG: stage.name},
    )
    for stage in STAGES
}

plan_job = dg.define_asset_job(
    "experiment_plan_job",
    selection=dg.AssetSelection.assets("experiment_plan"),
    description="What an experiment file asks for and costs (sensor `experiment_files`).",
)


@dg.job(partitions_def=runs)
def check_run() -> None:
    """Tries a run again: finite numbers, resuming bit for bit, no example leaning on its batch. Changes nothing."""
    try_run()
