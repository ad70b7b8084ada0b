"""`mech run`: launches what is not current of an experiment, several Dagster runs at a time, one process each.

The store decides what is to be done, and is asked again whenever a stage ends. Ctrl-C stops at once and loses nothing
that was acknowledged; the next launch continues.
"""

import os
import time
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import dagster as dg

from mech_pipeline.assets.launcher.execute import LAUNCHER_TAG, close_orphans
from mech_pipeline.assets.launcher.processes import warm_up, worker_context
from mech_pipeline.assets.launcher.worker import Outcome, Spoken, Task, work
from mech_pipeline.assets.partitions import register
from mech_pipeline.errors import MechError
from mech_pipeline.pipeline.cells import steps_of
from mech_pipeline.pipeline.plan import Plan
from mech_pipeline.pipeline.stage import Scope
from mech_pipeline.pipeline.stages import STAGES, stage_of
from mech_pipeline.progress import Emit, format_seconds
from mech_pipeline.project import Project
from mech_pipeline.resolve import Resolved, corpus_hashes
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.store.store import Store


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    task: Task | None = None
    began: float = 0.0


@dataclass
class Launch:
    """One launch of an experiment.

    Args:
        emit: receives progress lines.
        workers: processes at a time; each trains or analyses on the threads its spec names.
    """

    experiment: Resolved
    file: Path
    project: Project
    store: Store
    emit: Emit
    workers: int
    _specs: dict[str, RunSpec] = field(init=False)
    _plan: Plan = field(init=False)
    _pool: list[_Worker] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._specs = {spec.run: spec for spec in self.experiment.runs()}
        runs = self.experiment.runs()
        self._plan = Plan(self.store, runs, corpus_hashes(runs), self.experiment)

    def todo(self) -> dict[str, dict[str, int]]:
        """Ready stages of each run and of the experiment; all empty means there is nothing to do."""
        self._plan.look()
        names = [*self._specs, self.experiment.experiment]
        return {name: {stage: len(cells) for stage, cells in self._plan.ready(name).items()} for name in names}

    def is_current(self) -> bool:
        """Whether nothing has to be computed."""
        return not any(self.todo().values())

    def run(self) -> None:
        """Computes everything that is not current.

        Raises:
            MechError: a stage failed; the other runs were finished first.
        """
        with self.store.lock(
            f"experiment-{self.experiment.experiment}", f"run experiment {self.experiment.experiment}"
        ):
            try:
                # Before any worker: two processes that create Dagster's database at once break it.
                with dg.DagsterInstance.from_config(str(self.project.home)) as instance:
                    if closed := close_orphans(instance):
                        self.emit(
                            f"found {closed} unfinished Dagster runs of a launch that is gone; continuing from what is kept"
                        )
                    register(instance, self._specs.values())
                self._start_workers()
                self._loop()
            except KeyboardInterrupt:
                self._stop(kill=True)
                self._close_own_runs()
                raise
            finally:
                self._stop(kill=False)

    def _loop(self) -> None:
        """Hands out what is ready until nothing is and no worker is busy: then nothing can become ready any more."""
        failures: list[Outcome] = []
        blocked: set[str] = set()
        unsure: set[str] = set()
        self._plan.look()
        while True:
            self._hand_out(blocked)  # what is known; only then half a second for what is not
            for name in unsure:
                self._plan.look(name)
            unsure.clear()
            self._hand_out(blocked)
            busy = [worker for worker in self._pool if worker.task is not None]
            if not busy:
                break
            for outcome in self._receive(busy):
                if outcome.failure is not None:
                    failures.append(outcome)
                    self.emit(f"failed: {outcome.failure}")
                    blocked.add(outcome.task.run or self.experiment.experiment)
                    continue
                for name in self._touched(outcome.task):
                    self._plan.ended(outcome.task.stage, name)
                    unsure.add(name)
        if failures:
            raise self._failure(failures)

    def _touched(self, task: Task) -> list[str]:
        """The runs (or the experiment) of which a finished task did a stage."""
        if task.run is None:
            return [self.experiment.experiment]
        return self._stack(task.run) if task.stage == "training" else [task.run]

    def _hand_out(self, blocked: set[str]) -> None:
        for worker in self._pool:
            if worker.task is None and (task := self._next(blocked)) is not None:
                worker.task, worker.began = task, time.monotonic()
                worker.connection.send(task)

    def _next(self, blocked: set[str]) -> Task | None:
        """The next task that no worker has; none of the runs of which something failed."""
        taken = {(w.task.stage, w.task.run or w.task.experiment) for w in self._pool if w.task is not None}
        for stage, name in self._candidates():
            if name in blocked or (stage, name) in taken or stage not in self._plan.ready(name):
                continue
            if stage == "spec" and any(busy == "spec" for busy, _ in taken):
                continue  # runs share tokens: the first makes them, the others find them
            if stage == "training" and not self._stack_is_free(name, taken):
                continue  # one task trains a whole stack, once all of it is described
            return self._task(stage, name)
        return None

    def _candidates(self) -> list[tuple[str, str]]:
        """All (stage, run or experiment), the most urgent first.

        Runs that lead to the longest stages come first, so that these are not left alone at the end. What has no
        priority (compaction, the report) comes after everything of all runs.
        """
        ranked = sorted(STAGES, key=lambda stage: -stage.priority)
        runs = sorted(self._specs.values(), key=lambda spec: not spec.is_attributed)
        of_runs = [stage for stage in ranked if stage.scope != Scope.EXPERIMENT]
        urgent = [
            (stage.name, spec.run)
            for attributed in (True, False)
            for stage in of_runs
            for spec in runs
            if stage.priority and spec.is_attributed == attributed
        ]
        later = [(stage.name, spec.run) for stage in of_runs for spec in runs if not stage.priority]
        whole = [(stage.name, self.experiment.experiment) for stage in ranked if stage.scope == Scope.EXPERIMENT]
        return urgent + later + whole

    def _stack(self, run: str) -> list[str]:
        """The runs that are trained in one stack with a run; itself alone, if it is not stacked."""
        spec = self._specs[run]
        return [run] if not spec.training.stacked else [o.run for o in self._specs.values() if o.arm == spec.arm]

    def _stack_is_free(self, run: str, taken: set[tuple[str, str]]) -> bool:
        siblings = self._stack(run)
        return not any(
            "spec" in self._plan.ready(each) or ("training", each) in taken for each in siblings if each != run
        )

    def _task(self, stage: str, name: str) -> Task:
        """What a worker is told to do."""
        experiment, scope = self.experiment.experiment, stage_of(stage).scope
        if scope == Scope.EXPERIMENT:
            return Task(stage, None, experiment, str(self.file))
        if scope == Scope.TARGET:
            steps = steps_of(self._plan.ready(name)[stage])
            return Task(stage, name, experiment, str(self.file), steps[0], steps[-1])
        return Task(stage, name, experiment, str(self.file), 0, self._specs[name].training.steps)

    def _receive(self, busy: list[_Worker]) -> list[Outcome]:
        """Waits for messages; lines are shown, outcomes returned."""
        outcomes = []
        for connection in wait([worker.connection for worker in busy]):
            worker = next(w for w in busy if w.connection is connection)
            assert worker.task is not None, "only busy workers are waited for"
            try:
                message = worker.connection.recv()
            except EOFError:
                task = worker.task
                self._pool.remove(worker)
                error = f"{task.stage} of {task.run or task.experiment}: its process died (out of memory?)"
                outcomes.append(Outcome(task, error, "run the same command again: it continues from what is kept"))
                continue
            if isinstance(message, Spoken):
                self.emit(message.said)
            else:
                if message.problem is None:
                    took = format_seconds(time.monotonic() - worker.began)
                    self.emit(
                        f"finished {worker.task.stage} of {worker.task.run or worker.task.experiment}: took {took}"
                    )
                worker.task = None
                outcomes.append(message)
        return outcomes

    def _failure(self, failures: list[Outcome]) -> MechError:
        """One line; the traceback of an unexpected error goes to a file, not to the terminal."""
        first = failures[0]
        more = f" (and {len(failures) - 1} more failures above)" if len(failures) > 1 else ""
        assert first.problem is not None, "failures have problems"
        if first.trace is None:
            return MechError(first.problem + more, first.next_step)
        path = self.project.home / ".dagster" / "last_error.txt"
        with suppress(OSError):  # a full disk must not hide what went wrong
            path.write_text(first.trace)
        return MechError(first.problem + more, f"the traceback is in {path}")

    def _start_workers(self) -> None:
        warm_up()
        context = worker_context()
        experiments = str(self.file.parent)
        for _ in range(self.workers):
            ours, theirs = context.Pipe()
            arguments = (theirs, self.project, experiments, os.getpid())
            process = context.Process(target=work, args=arguments, daemon=True)
            process.start()
            theirs.close()
            self._pool.append(_Worker(process, ours))

    def _stop(self, *, kill: bool) -> None:
        for worker in self._pool:
            if kill:
                worker.process.kill()
            worker.connection.close()
        for worker in self._pool:
            worker.process.join(timeout=10)
            if worker.process.is_alive():
                worker.process.kill()
        self._pool = []

    def _close_own_runs(self) -> None:
        with dg.DagsterInstance.from_config(str(self.project.home)) as instance:
            for run in instance.get_runs(
                dg.RunsFilter(tags={LAUNCHER_TAG: str(os.getpid())}, statuses=[dg.DagsterRunStatus.STARTED])
            ):
                instance.report_run_canceled(run, message="stopped by the user; what it finished is kept")
