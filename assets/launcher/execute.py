"""Executes stages of one run as Dagster runs in this process, recorded in the instance that the UI shows.

Dagster's `execute_in_process` builds the job of the selected assets anew each time, and writes its description down to hash
it: a third of what a Dagster run costs beside its work. Here a job is built once for all runs of a selection, which takes
some of Dagster's private names.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.execute_in_process import core_execute_in_process, merge_run_tags
from dagster._core.storage.tags import GRPC_INFO_TAG

from mech_pipeline.assets.partitions import STEPS, grid_names, partition, step_key
from mech_pipeline.assets.registering import register_cells, register_demand
from mech_pipeline.assets.tags import LAUNCHER_TAG, PROCESS_TAG
from mech_pipeline.pipeline.stage import Scope
from mech_pipeline.pipeline.stages import STAGES
from mech_pipeline.process_identity import identity, is_gone

_OPEN = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.NOT_STARTED]
_BEGUN = [*_OPEN, dg.DagsterRunStatus.CANCELING]
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


class Executor:
    """Runs selections of assets through the implicit asset job.

    Args:
        launcher_pid: process that asked for these runs. They run in this process, and its death ends them; a later
            launch closes what it left open.
    """

    def __init__(self, definitions: dg.Definitions, instance: dg.DagsterInstance, launcher_pid: int) -> None:
        self._job = definitions.resolve_implicit_global_asset_job_def()
        self._instance = instance
        self._job_of = cache(self._built)
        self._tags = {LAUNCHER_TAG: str(launcher_pid), PROCESS_TAG: identity()}

    def run_assets(self, assets: Sequence[str], key: str | None, config: Mapping[str, Any] | None = None) -> None:
        """Assets partitioned by run or experiment (or, with no key, not at all).

        Raises:
            Exception: whatever the asset raised.
        """
        if key is not None:
            for asset in assets:
                register_demand(self._instance, asset, key)
        self._execute(assets, config, partition_key=key, tags=self._tags)

    def step_assets(self, assets: Sequence[str], run: str, first: int, last: int) -> None:
        """Assets partitioned by run and step, over their partitions in a range of steps, in one Dagster run."""
        stage = next((stage for stage in STAGES if assets[0] in stage.assets), None)
        if stage is not None and stage.scope == Scope.TARGET and first == last:
            register_cells(self._instance, stage, run, [first])  # where it formed is known only now
        known = self._instance.get_dynamic_partitions(grid_names(stage)[1] if stage is not None else STEPS)
        inside = [int(key) for key in known if step_key(first) <= key <= step_key(last)]
        tags = self._tags | {
            "dagster/asset_partition_range_start": partition(run, inside[0]),
            "dagster/asset_partition_range_end": partition(run, inside[-1]),
        }
        self._execute(assets, None, partition_key=None, tags=tags)

    def _execute(
        self,
        assets: Sequence[str],
        config: Mapping[str, Any] | None,
        *,
        partition_key: str | None,
        tags: dict[str, str],
    ) -> None:
        keys = [dg.AssetKey(name) for name in assets]
        job, settings = self._job_of(tuple(keys)), {"ops": dict(config or {}), **_QUIET}
        core_execute_in_process(
            job=job,
            run_config=settings,
            instance=self._instance,
            output_capturing_enabled=False,
            raise_on_error=True,
            run_tags=merge_run_tags(job.get_definition(), partition_key, tags, keys, self._instance, settings),
            asset_selection=frozenset(keys),
        )

    def _built(self, keys: tuple[dg.AssetKey, ...]) -> InMemoryJob:
        """The job of some assets, whose description Dagster then remembers."""
        return InMemoryJob(self._job.as_ephemeral_job(resource_defs={}, input_values={}, asset_selection=keys))


def close_orphans(instance: dg.DagsterInstance) -> int:
    """Marks runs as failed whose process is gone (kill -9, power cut), and frees their places; returns how many runs."""
    closed = 0
    for run in instance.get_runs(dg.RunsFilter(statuses=_OPEN)):
        if _is_orphan(run.tags):
            instance.report_run_failed(run, "the process that ran it is gone; what it finished is kept")
            closed += 1
    free_places(instance)
    return closed


def announce_stop(instance: dg.DagsterInstance) -> None:
    """Says that runs which a code server of this machine has started are being stopped.

    Without it, Dagster calls a run failed that a signal ends, and starts it again the next time that a daemon is up.
    """
    for run in instance.get_runs(dg.RunsFilter(statuses=_OPEN)):
        if GRPC_INFO_TAG in run.tags and not _server_is_gone(run.tags):
            instance.report_run_canceling(run, message="the UI is being ended")


def close_stopped(instance: dg.DagsterInstance) -> int:
    """Marks runs as stopped that a UI had started, or somebody in it, and whose processes are gone; returns how many.

    Stopped, not failed: Dagster would start failed ones again by itself the next time that a daemon is up.
    """
    closed = 0
    for run in instance.get_runs(dg.RunsFilter(statuses=_BEGUN)):
        if _is_orphan(run.tags) or _server_is_gone(run.tags):
            instance.report_run_canceled(run, message="the UI that ran it has ended; what it finished is kept")
            closed += 1
    free_places(instance)
    return closed


def cancel_runs(instance: dg.DagsterInstance, launcher_pid: int) -> None:
    """Marks what a launcher has open as stopped by the user, and frees its places. Its workers are gone already."""
    for run in instance.get_runs(dg.RunsFilter(tags={LAUNCHER_TAG: str(launcher_pid)}, statuses=_OPEN)):
        instance.report_run_canceled(run, message="stopped by the user; what it finished is kept")
    free_places(instance)


def free_places(instance: dg.DagsterInstance) -> None:
    """Gives back the places in pools that ended runs still hold: a killed process does not, and enough of them block all others.

    Dagster's daemon does the same; a laptop may never start one.
    """
    storage = instance.event_log_storage
    if not storage.supports_global_concurrency_limits:
        return
    for run_id in storage.get_concurrency_run_ids():
        run = instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            storage.free_concurrency_slots_for_run(run_id)


def _is_orphan(tags: Mapping[str, str]) -> bool:
    if (process := tags.get(PROCESS_TAG)) is not None:
        return is_gone(process)
    if (launcher := tags.get(LAUNCHER_TAG)) is not None:  # a run of an older version
        return is_gone(identity(int(launcher)))
    return False


def _server_is_gone(tags: Mapping[str, str]) -> bool:
    """Whether a run was started by a code server of this machine whose socket is no longer there."""
    place = json.loads(tags.get(GRPC_INFO_TAG, "{}")).get("socket")
    return place is not None and not Path(place).exists()
