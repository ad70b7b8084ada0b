"""Executes stages of one run as Dagster runs in this process, recorded in the instance that the UI shows."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from mech_pipeline.assets.partitions import partition

LAUNCHER_TAG = "mech/launcher_pid"
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


class Executor:
    """Runs selections of assets through the implicit asset job.

    Args:
        launcher_pid: process whose death ends these runs; a later launch closes what it left open.
    """

    def __init__(self, definitions: dg.Definitions, instance: dg.DagsterInstance, launcher_pid: int) -> None:
        self._job = definitions.resolve_implicit_global_asset_job_def()
        self._instance = instance
        self._tags = {LAUNCHER_TAG: str(launcher_pid)}

    def run_assets(self, assets: Sequence[str], key: str | None, config: Mapping[str, Any] | None = None) -> None:
        """Assets partitioned by run or experiment (or, with no key, not at all).

        Raises:
            Exception: whatever the asset raised.
        """
        self._execute(assets, config, partition_key=key, tags=self._tags)

    def step_assets(self, assets: Sequence[str], run: str, first: int, last: int) -> None:
        """Assets partitioned by run and step, over a range of steps, in one Dagster run."""
        tags = self._tags | {
            "dagster/asset_partition_range_start": partition(run, first),
            "dagster/asset_partition_range_end": partition(run, last),
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
        self._job.execute_in_process(
            asset_selection=[dg.AssetKey(name) for name in assets],
            partition_key=partition_key,
            tags=tags,
            instance=self._instance,
            run_config={"ops": dict(config or {}), **_QUIET},
        )


def close_orphans(instance: dg.DagsterInstance) -> int:
    """Marks runs as failed whose launching process is gone (kill -9, power cut); returns how many."""
    open_states = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.NOT_STARTED]
    closed = 0
    for run in instance.get_runs(dg.RunsFilter(statuses=open_states)):
        pid = run.tags.get(LAUNCHER_TAG)
        if pid is not None and not _alive(int(pid)):
            instance.report_run_failed(run, "the process that ran it is gone; what it finished is kept")
            closed += 1
    return closed


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
