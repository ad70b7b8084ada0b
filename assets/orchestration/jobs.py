"""One job for each stage, so that the list of runs in the UI says what runs."""

import dagster as dg

from mech_pipeline.assets.checks import try_run
from mech_pipeline.assets.partitions import runs
from mech_pipeline.assets.stages import BY_RUN, BY_STEP

STAGE_TAG, RUN_TAG, WORK_TAG, EXPERIMENT_TAG = "mech/stage", "mech/run", "mech/work", "mech/experiment"

_DOES = {
    "spec": "Describes runs and makes their tokens.",
    "training": "Trains runs, or goes on where they stopped.",
    "formation": "Finds when mechanisms formed.",
    "compaction": "Puts the rows of finished runs into few files.",
    "analysis": "Mechanisms, heads and gradients of checkpoints.",
    "circuits": "Edges that carry a mechanism.",
    "neurons": "Which tokens moved every neuron.",
    "ledger": "What happened between checkpoints, by example.",
    "influence": "What would happen without an example.",
    "retraining": "Trains without examples: predictions against what happens.",
}

STAGE_JOBS = {
    stage: dg.define_asset_job(
        f"{stage}_stage", selection=dg.AssetSelection.assets(*names), description=_DOES[stage], tags={STAGE_TAG: stage}
    )
    for stage, names in (BY_RUN | BY_STEP).items()
}

nightly_job = dg.define_asset_job(
    "nightly_backfill",
    selection=dg.AssetSelection.assets(*(name for names in BY_STEP.values() for name in names)),
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
