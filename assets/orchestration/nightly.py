"""The nightly backfill: everything of checkpoints that is missing or not current in any run, in contiguous batches."""

from collections.abc import Iterator

import dagster as dg

from mech_pipeline.assets.orchestration.waiting import IN_FLIGHT, Board, elsewhere, is_free, known_sha256, step_range
from mech_pipeline.assets.registering import register_cells
from mech_pipeline.assets.stages import by_step, worked_on
from mech_pipeline.assets.tags import BY_TAG, EXPERIMENT_TAG, NIGHTLY, RUN_TAG, STAGE_TAG, WORK_TAG
from mech_pipeline.pipeline.stages import stage_of
from mech_pipeline.pipeline.work import started_specs, work_of
from mech_pipeline.resources.store import StoreResource

_ANY_ASSETS = "__ASSET_JOB"
"""Dagster's own job over all assets: stages have partitions of their own, and a job of ours has one kind."""


@dg.schedule(
    job_name=_ANY_ASSETS,
    cron_schedule="0 2 * * *",
    description="At 2 in the night: what is missing or not current at checkpoints of runs that have been trained. Skips while "
    "last night's is in flight. Turn it on here; it is off until then.",
)
def nightly(context: dg.ScheduleEvaluationContext, store: StoreResource) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """One Dagster run for each batch; failures of the night before are tried again."""
    assert context.scheduled_execution_time is not None, "the daemon evaluates schedules at a time"
    night = context.scheduled_execution_time.isoformat()
    unfinished = context.instance.get_runs_count(dg.RunsFilter(tags={BY_TAG: NIGHTLY}, statuses=IN_FLIGHT))
    if unfinished:
        yield dg.SkipReason(f"{unfinished} batches of an earlier night are still queued or running")
        return
    opened, board, requested = store.open(), Board(context.instance), 0
    known_sha256.cache_clear()
    for spec in map(store.located, started_specs(opened)):
        if not is_free(opened, spec.experiment):
            continue
        sha256 = known_sha256(spec.corpus.model_dump_json(), home=spec.home)
        for work in work_of(opened, spec, sha256, elsewhere(opened, spec)):
            if not by_step(stage_of(work.stage)) or (work.run, work.stage) in board.in_flight:
                continue
            requested += 1
            register_cells(context.instance, stage_of(work.stage), work.run, work.steps)
            yield dg.RunRequest(
                run_key=f"{night}:{work.identity}",
                asset_selection=[dg.AssetKey(name) for name in worked_on(stage_of(work.stage))],
                tags=step_range(work)
                | {
                    BY_TAG: NIGHTLY,
                    STAGE_TAG: work.stage,
                    RUN_TAG: work.run,
                    WORK_TAG: work.identity,
                    EXPERIMENT_TAG: spec.experiment,
                    "dagster/priority": "-2",
                },
            )
    if not requested:
        yield dg.SkipReason("everything at checkpoints is current")
