"""A worker process of `mech run`: takes stages, executes them, sends progress lines and outcomes back."""

import os
import signal
import traceback
import warnings
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path

from mech_pipeline.errors import MechError
from mech_pipeline.parent import end_with_parent
from mech_pipeline.progress import Said
from mech_pipeline.project import Project
from mech_pipeline.system_errors import in_words
from mech_pipeline.training.allocator import keep_freed_memory


@dataclass(frozen=True)
class Task:
    """One stage of one run (or the report of the experiment, with no run)."""

    stage: str
    run: str | None
    experiment: str
    file: str
    first_step: int = 0
    last_step: int = 0
    every: int = 1


@dataclass(frozen=True)
class Spoken:
    """What a worker says while it works."""

    said: Said


@dataclass(frozen=True)
class Outcome:
    """End of a task.

    Attributes:
        problem: what went wrong, in one line; none: it is done.
        next_step: what the user can do about it.
        trace: of an error that the user can do nothing about.
    """

    task: Task
    problem: str | None = None
    next_step: str = ""
    trace: str | None = None

    @property
    def failure(self) -> MechError | None:
        """The error, for people."""
        return None if self.problem is None else MechError(self.problem, self.next_step)


def work(connection: Connection, project: Project, experiments: str, launcher_pid: int) -> None:
    """Serves tasks until the pipe closes. Dies with its launcher, and ignores Ctrl-C, which the launcher handles."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()  # the fork server ends with its launcher, and this process with the fork server
    keep_freed_memory()
    warnings.filterwarnings("ignore")
    os.environ["DAGSTER_EMIT_PARTITION_SUBSET_IN_PLANNED_EVENTS"] = "1"
    from mech_pipeline.assets.events import add_sink
    from mech_pipeline.assets.history import open_history
    from mech_pipeline.assets.launcher.execute import Executor
    from mech_pipeline.mechanisms.chosen import CHOSEN

    add_sink(lambda said: _tell(connection, Spoken(said)))
    CHOSEN.use(project.mechanisms)
    with open_history(project.home) as instance:
        # By name: what is built there has a job that starts workers.
        build_definitions = import_module("mech_pipeline.definitions").build_definitions
        definitions = build_definitions(project.store, Path(experiments), project.home)
        executor = Executor(definitions, instance, launcher_pid)
        while True:
            try:
                task: Task = connection.recv()
            except (EOFError, OSError):
                return
            _tell(connection, _outcome(executor, task))


def _tell(connection: Connection, message: Spoken | Outcome) -> None:
    """Tells the launcher. If it is gone, nobody wants the rest: this process ends with it, without a word."""
    try:
        connection.send(message)
    except OSError:
        os._exit(1)


def _outcome(executor, task: Task) -> Outcome:  # type: ignore[no-untyped-def]  # Executor is imported late
    try:
        _perform(executor, task)
    except MechError as error:
        return Outcome(task, error.problem, error.next_step)
    except Exception as error:
        if "disk is full" in str(error) or "No space left on device" in str(error):  # Dagster's own database
            problem = "the disk is full; what was stored before is whole"
            return Outcome(task, problem, "free space and run the same command again")
        if (sentence := in_words(error)) is not None:
            return Outcome(task, sentence.problem, sentence.next_step, traceback.format_exc())
        what = f"{task.stage} of {task.run or task.experiment}: {type(error).__name__}: {error}"
        return Outcome(task, " ".join(what.split()), trace=traceback.format_exc())
    return Outcome(task)


def _perform(executor, task: Task) -> None:  # type: ignore[no-untyped-def]
    from mech_pipeline.assets.spec import READS_FILE
    from mech_pipeline.assets.stages import by_step, worked_on
    from mech_pipeline.pipeline.stages import stage_of

    described = {"config": {"file": task.file}}
    if task.stage == "zoom":
        assert task.run is not None, "a zoom is into a run"
        window = {"first_step": task.first_step, "last_step": task.last_step, "every": task.every}
        executor.run_assets(["zoom"], task.run, {"zoom": {"config": window}})
        executor.step_assets(["mechanism_values", "head_scores"], task.run, task.first_step, task.last_step)
        return
    stage = stage_of(task.stage)
    assets = worked_on(stage)
    if by_step(stage):
        executor.step_assets(assets, task.run, task.first_step, task.last_step)
        return
    config = {asset: described for asset in assets if asset in READS_FILE}
    executor.run_assets(assets, task.run or task.experiment, config)
    if stage.name == "report":
        executor.run_assets(["warehouse"], None)
