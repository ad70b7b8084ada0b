"""`mech run`: launches what is not current of an experiment, several Dagster runs at a time, one process each.

The store decides what is to be done, and is asked again whenever a stage ends. Ctrl-C stops at once and loses nothing
that was acknowledged; the next launch continues.
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import dagster as dg

from mech_pipeline.assets.launcher.execute import LAUNCHER_TAG, close_orphans
from mech_pipeline.assets.launcher.processes import warm_up, worker_context
from mech_pipeline.assets.launcher.worker import Line, Outcome, Task, work
from mech_pipeline.assets.partitions import register
from mech_pipeline.errors import MechError
from mech_pipeline.pipeline import report as report_stage
from mech_pipeline.pipeline.influence.influence import target_steps
from mech_pipeline.pipeline.plan import ready_stages
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.progress import format_seconds
from mech_pipeline.project import Project
from mech_pipeline.resolve import Resolved, corpus_hashes
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.store.store import Store

# What leads to the longest stages (retraining, influence) first, so that they are not left alone at the end.
_FIRST = ("spec", "retraining", "influence", "formation", "analysis", "training", "ledger", "neurons", "circuits")
_AFTER = ("training", "analysis", "formation", "neurons", "circuits", "compaction")


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
    emit: Callable[[str], None]
    workers: int
    _specs: dict[str, RunSpec] = field(init=False)
    _corpora: dict[str, str] = field(init=False)
    _pool: list[_Worker] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._specs = {spec.run: spec for spec in self.experiment.runs()}
        self._corpora = corpus_hashes(self.experiment.runs())

    def todo(self) -> dict[str, dict[str, int]]:
        """Ready stages of each run; all empty and no report to make means there is nothing to do."""
        return {run: ready_stages(self.store, spec, self._corpora[run]) for run, spec in self._specs.items()}

    def is_current(self) -> bool:
        """Whether nothing has to be computed."""
        return not any(self.todo().values()) and report_stage.is_current(self.store, self.experiment)

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
        failures: list[Outcome] = []
        blocked: set[str] = set()
        ready, unsure = self.todo(), set[str]()
        while True:
            self._hand_out(ready, blocked, unsure)  # what is known; only then half a second for what is not
            for name in unsure:
                ready[name] = ready_stages(self.store, self._specs[name], self._corpora[name])
            unsure.clear()
            self._hand_out(ready, blocked, unsure)
            busy = [worker for worker in self._pool if worker.task is not None]
            if not busy:
                break
            for outcome in self._receive(busy):
                run = outcome.task.run
                if outcome.error is not None:
                    failures.append(outcome)
                    self.emit(f"failed: {outcome.error}")
                    blocked.add(run or "")
                elif run is not None:
                    for each in self._stack(run) if outcome.task.stage == "training" else [run]:
                        ready[each].pop(outcome.task.stage, None)
                        unsure.add(each)
        if failures:
            raise self._failure(failures)

    def _hand_out(self, ready: dict[str, dict[str, int]], blocked: set[str], unsure: set[str]) -> None:
        for worker in self._pool:
            if worker.task is None and (task := self._next(ready, blocked, unsure)) is not None:
                worker.task, worker.began = task, time.monotonic()
                worker.connection.send(task)

    def _next(self, ready: dict[str, dict[str, int]], blocked: set[str], unsure: set[str]) -> Task | None:
        """The next task that no worker has; the report comes when no run has anything left.

        Args:
            unsure: runs of which a stage has ended; what became ready by it is not yet in `ready`.
        """
        taken = {(w.task.run, w.task.stage) for w in self._pool if w.task is not None}
        attributed = [spec for spec in self._specs.values() if spec.accounts or spec.influence.mechanisms]
        others = [spec for spec in self._specs.values() if spec not in attributed]
        candidates = [(stage, spec) for stage in _FIRST for spec in attributed]
        candidates += [("spec", spec) for spec in others] + [(stage, spec) for stage in _AFTER for spec in others]
        candidates += [("compaction", spec) for spec in attributed]
        for stage, spec in candidates:
            if stage == "spec" and any(busy == "spec" for _, busy in taken):
                continue  # runs share tokens: the first makes them, the others find them
            if stage == "training" and not self._stack_is_free(spec.run, ready, taken):
                continue  # one task trains a whole stack, once all of it is described
            if spec.run not in blocked and stage in ready[spec.run] and (spec.run, stage) not in taken:
                return self._task(stage, spec)
        if taken or blocked or unsure or any(ready.values()) or report_stage.is_current(self.store, self.experiment):
            return None
        return self._task("report", None)

    def _stack(self, run: str) -> list[str]:
        """The runs that are trained in one stack with a run; itself alone, if it is not stacked."""
        spec = self._specs[run]
        return [run] if not spec.training.stacked else [o.run for o in self._specs.values() if o.arm == spec.arm]

    def _stack_is_free(self, run: str, ready: dict[str, dict[str, int]], taken: set[tuple[str | None, str]]) -> bool:
        siblings = self._stack(run)
        return not any("spec" in ready[each] or (each, "training") in taken for each in siblings if each != run)

    def _task(self, stage: str, spec: RunSpec | None) -> Task:
        name = self.experiment.experiment
        if spec is None:
            return Task(stage, None, name, str(self.file))
        if stage == "influence":
            steps = target_steps(OpenRun(self.store, spec))
            return Task(stage, spec.run, name, str(self.file), steps[0], steps[-1])
        if stage == "retraining":
            last = target_steps(OpenRun(self.store, spec))[-1]
            return Task(stage, spec.run, name, str(self.file), last, last)
        return Task(stage, spec.run, name, str(self.file), 0, spec.training.steps)

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
                outcomes.append(Outcome(task, f"{error} → run the same command again: it continues from what is kept"))
                continue
            if isinstance(message, Line):
                self.emit(message.text)
            else:
                if message.error is None:
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
        assert first.error is not None, "failures have errors"
        if first.trace is None:
            problem, _, next_step = first.error.partition(" → ")
            return MechError(problem + more, next_step)
        path = self.project.home / ".dagster" / "last_error.txt"
        with suppress(OSError):  # a full disk must not hide what went wrong
            path.write_text(first.trace)
        return MechError(first.error + more, f"the traceback is in {path}")

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
