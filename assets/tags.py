"""Tags of Dagster runs, by which they are found again."""

STAGE_TAG, RUN_TAG, WORK_TAG, EXPERIMENT_TAG = "mech/stage", "mech/run", "mech/work", "mech/experiment"
"""What a batch of the sensor `work` is of; WORK_TAG is its identity."""
BY_TAG, NIGHTLY = "mech/by", "nightly"
"""Who started a batch: the schedule `nightly`."""
LAUNCHER_TAG, PROCESS_TAG = "mech/launcher_pid", "mech/process"
"""Who executes a run of the launcher."""
