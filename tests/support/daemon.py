"""Dagster's daemons, tick by tick, in the test's own process: what they start runs at once, so code can be patched."""

import datetime
import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.test_utils import InProcessTestWorkspaceLoadTarget, instance_for_test
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._daemon import sensor
from dagster._scheduler import scheduler

_AT_ONCE = {
    "run_coordinator": {"module": "dagster._core.run_coordinator", "class": "DefaultRunCoordinator"},
    "run_launcher": {
        "module": "dagster._core.launcher.sync_in_memory_run_launcher",
        "class": "SyncInMemoryRunLauncher",
    },
}
_DEFINITIONS = """
from pathlib import Path
from mech_pipeline.definitions import build_definitions
defs = build_definitions({store!r}, Path({experiments!r}))
"""
_LOG = logging.getLogger("daemon under test")


class Daemon:
    """Sensors and schedules over one project; a minute passes between ticks."""

    def __init__(
        self, home: Path, instance: dg.DagsterInstance, workspace: WorkspaceProcessContext, minutes: int = 0
    ) -> None:
        self.home, self.instance, self.minutes = home, instance, minutes
        self._workspace, self._schedules = workspace, {}

    @property
    def seconds(self) -> float:
        """How far the daemons' clock is ahead."""
        return 60.0 * self.minutes

    def tick(self) -> list[dg.DagsterRun]:
        """All sensors once; returns the runs that they started, which have ended."""
        return self._started(lambda: list(sensor.execute_sensor_iteration(self._workspace, _LOG, None, None)))

    def night(self, at: datetime.datetime) -> list[dg.DagsterRun]:
        """The schedules up to a time."""
        return self._started(lambda: list(scheduler.launch_scheduled_runs(self._workspace, _LOG, at, self._schedules)))

    def _started(self, act) -> list[dg.DagsterRun]:
        before = {run.run_id for run in self.instance.get_runs()}
        self.minutes += 1
        failures = [found for found in act() if found is not None and hasattr(found, "to_string")]
        assert not failures, failures[0].to_string()
        return [run for run in reversed(self.instance.get_runs()) if run.run_id not in before]

    def until_quiet(self, ticks: int = 12) -> list[dg.DagsterRun]:
        """Ticks of sensors until one starts nothing."""
        started: list[dg.DagsterRun] = []
        for _ in range(ticks):
            new = self.tick()
            if not new:
                return started
            started += new
        raise AssertionError(f"still starting runs after {ticks} ticks: {[run.job_name for run in started]}")

    def said(self, name: str) -> str:
        """What the last tick of a sensor says: why it started nothing, or its error."""
        (one,) = [each for each in self._repository().get_sensors() if each.name == name]
        (tick,) = self.instance.get_ticks(one.get_remote_origin_id(), one.selector_id, limit=1)
        return tick.error.to_string() if tick.error else tick.skip_reason or ""

    def turn_on(self, schedule: str) -> None:
        """As the switch in the UI does."""
        (one,) = [each for each in self._repository().get_schedules() if each.name == schedule]
        self.instance.start_schedule(one)

    def launch(self, job: str = "launch_experiment", **selection: object) -> bool:
        """As the button in the UI does; whether it succeeded."""
        definition = self.definitions().resolve_job_def(job)
        op = {"launch_experiment": "ask_for_runs", "withdraw_experiment": "withdraw_runs"}[job]
        quiet = {"console": {"config": {"log_level": "CRITICAL"}}}
        config = {"ops": {op: {"config": {"experiment": "tiny", **selection}}}, "loggers": quiet}
        return definition.execute_in_process(instance=self.instance, run_config=config, raise_on_error=False).success

    def definitions(self) -> dg.Definitions:
        """The same definitions in this process."""
        from mech_pipeline.definitions import build_definitions

        return build_definitions(str(self.home / "store"), self.home / "experiments")

    def _repository(self):
        (location,) = self._workspace.create_request_context().get_code_location_entries().values()
        return next(iter(location.code_location.get_repositories().values()))


@contextmanager
def daemon(
    home: Path, monkeypatch: pytest.MonkeyPatch, history: dg.DagsterInstance | None = None, minutes: int = 0
) -> Iterator[Daemon]:
    """Daemons over a project folder.

    Args:
        history: where Dagster keeps what happened, and how it starts runs; by default `history/` in the project folder,
            which starts them at once.
        minutes: how far the clock of earlier daemons on the same history was ahead.
    """
    (home / "history").mkdir(exist_ok=True)
    written = _DEFINITIONS.format(store=str(home / "store"), experiments=str(home / "experiments"))
    (home / "located.py").write_text(written)
    origin = InProcessCodeLocationOrigin(LoadableTargetOrigin(python_file=str(home / "located.py")))
    with (
        nullcontext(history)
        if history is not None
        else instance_for_test(overrides=_AT_ONCE, temp_dir=str(home / "history")) as instance,
        WorkspaceProcessContext(instance, InProcessTestWorkspaceLoadTarget(origin)) as workspace,
    ):
        made = Daemon(home, instance, workspace, minutes)
        now, timestamp = sensor.get_current_datetime, sensor.get_current_timestamp
        monkeypatch.setattr(sensor, "get_current_datetime", lambda: now() + datetime.timedelta(seconds=made.seconds))
        monkeypatch.setattr(sensor, "get_current_timestamp", lambda: timestamp() + made.seconds)
        yield made
