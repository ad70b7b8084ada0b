"""`mech run`: launches what is not current of an experiment, several Dagster runs at a time, one process each.

The store decides what is to be done, and is asked again whenever a stage ends. Ctrl-C stops at once and loses nothing
that was acknowledged; the next launch continues.
"""

import os
import pickle
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import dagster as dg

from mech_pipeline.assets.history import alone_in, open_history
from mech_pipeline.assets.launcher.execute import cancel_runs, close_orphans
from mech_pipeline.assets.launcher.processes import warm_up, worker_context
from mech_pipeline.assets.launcher.scratch import sweep
from mech_pipeline.assets.launcher.worker import Outcome, Spoken, Task, work
from mech_pipeline.assets.registering import register
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

_JOIN_SECONDS = 3.0
_MAY_DIE_IDLE = 20


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
        only: these runs of the experiment; none: all.
    """

    experiment: Resolved
    file: Path
    project: Project
    store: Store
    emit: Emit
    workers: int
    only: Sequence[RunSpec] = ()
    _specs: dict[str, RunSpec] = field(init=False)
    _plan: Plan = field(init=False)
    _pool: list[_Worker] = field(default_factory=list)
    _died_idle: int = 0

    def __post_init__(self) -> None:
        runs = tuple(self.only or self.experiment.runs())
        self._specs = {spec.run: spec for spec in runs}
        others = {spec.run: spec for spec in self.experiment.runs() if spec.run not in self._specs}
        corpora = corpus_hashes((*runs, *others.values()))
        self._plan = Plan(
            self.store,
            runs,
            {run: corpora[run] for run in self._specs},
            self.experiment,
            elsewhere=lambda run: (others[run], corpora[run]) if run in others else None,
        )

    def todo(self) -> dict[str, dict[str, int]]:
        """Ready stages of each run and of the experiment; all empty means there is nothing to do."""
        self._plan.look()
        names = [*self._specs, self.experiment.experiment]
        return {name: {stage: len(cells) for stage, cells in self._plan.ready(name).items()} for name in names}

    def is_current(self) -> bool:
        """Whether nothing has to be computed."""
        return not any(self.todo().values())

    def tidy(self) -> None:
        """What a launch left that was killed after its last result: Dagster runs, places in pools, temporary files."""
        sweep(Path(tempfile.gettempdir()))
        with alone_in(self.project.home), open_history(self.project.home) as instance:
            close_orphans(instance)

    def run(self) -> None:
        """Computes everything that is not current.

        Raises:
            MechError: a stage failed; the other runs were finished first.
        """
        with self.store.lock(
            f"experiment-{self.experiment.experiment}", f"run experiment {self.experiment.experiment}"
        ):
            try:
                # Before any worker, and not beside another launch: two that create Dagster's database at once break it.
                with alone_in(self.project.home), open_history(self.project.home) as instance:
                    if closed := close_orphans(instance):
                        self.emit(
                            f"found {closed} unfinished Dagster runs of a launch that is gone; continuing from what is kept"
                        )
                    register(instance, self._specs.values())
                self._start_workers()
                self._loop()
            except (KeyboardInterrupt, dg.DagsterExecutionInterruptedError):
                self._stop()
                with open_history(self.project.home) as instance:
                    cancel_runs(instance, os.getpid())
                raise
            finally:
                self._stop()

    def _loop(self) -> None:
        """Hands out what is ready until nothing is and no worker is busy: then nothing can become ready any more."""
        failures: list[Outcome] = []
        blocked: set[str] = set()
        unsure: dict[str, set[str]] = {}
        self._plan.look()
        while True:
            self._hand_out(blocked, unsure)  # what is known and urgent; only then half a second for what is not known
            if unsure:
                self._plan.look(*unsure)  # of a stack dozens at once, of which each question is asked once
            unsure.clear()
            self._hand_out(blocked, unsure)
            busy = [worker for worker in self._pool if worker.task is not None]
            if not busy:
                break
            for outcome in self._receive():
                if outcome.failure is not None:
                    failures.append(outcome)
                    self.emit(f"failed: {outcome.failure}")
                    blocked.add(outcome.task.run or self.experiment.experiment)
                    continue
                for name in self._touched(outcome.task):
                    self._plan.ended(outcome.task.stage, name)
                    unsure.setdefault(name, set()).update(_readers(outcome.task.stage))
        if failures:
            raise self._failure(failures)

    def _touched(self, task: Task) -> list[str]:
        """The runs (or the experiment) of which a finished task did a stage."""
        if task.run is None:
            return [self.experiment.experiment]
        return self._stack(task.run) if task.stage == "training" else [task.run]

    def _hand_out(self, blocked: set[str], unsure: Mapping[str, set[str]]) -> None:
        for worker in self._pool:
            if worker.task is None and (task := self._next(blocked, unsure)) is not None:
                worker.task, worker.began = task, time.monotonic()
                with suppress(OSError):  # it has died: that is seen where its messages are received
                    worker.connection.send(task)

    def _next(self, blocked: set[str], unsure: Mapping[str, set[str]]) -> Task | None:
        """The next task that no worker has; none of the runs of which something failed.

        Args:
            unsure: stages by run that may have become ready. Nothing less urgent is handed out before that is known: a
                worker that begins a ledger of minutes would leave a formation of a second waiting.
        """
        taken = {(w.task.stage, w.task.run or w.task.experiment) for w in self._pool if w.task is not None}
        for stage, name in self._candidates():
            if name in blocked or (stage, name) in taken:
                continue
            if stage in unsure.get(name, ()):
                return None
            if stage not in self._plan.ready(name):
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

    def _receive(self) -> list[Outcome]:
        """Waits for messages and for deaths; lines are shown, outcomes returned.

        A worker's death is told by its sentinel, which the fork server holds: its pipe may be kept open by whatever
        process it has started, and what it was sending may end in the middle.
        """
        ready = wait([place for worker in self._pool for place in (worker.connection, worker.process.sentinel)])
        outcomes = []
        for worker in list(self._pool):
            if worker.connection in ready or worker.process.sentinel in ready:
                outcomes += self._hear(worker)
        return outcomes

    def _hear(self, worker: _Worker) -> list[Outcome]:
        """What a worker has said, to the last word if it has died."""
        dead, outcomes = worker.process.sentinel in wait([worker.process.sentinel], timeout=0), []
        try:
            while worker.connection.poll():
                message = worker.connection.recv()
                if isinstance(message, Spoken):
                    self.emit(message.said)
                    continue
                if message.problem is None:
                    took = format_seconds(time.monotonic() - worker.began)
                    self.emit(f"finished {message.task.stage} of {_subject(message.task)}: took {took}")
                worker.task = None
                outcomes.append(message)
        except (EOFError, OSError, pickle.UnpicklingError):
            dead = True
        return [*outcomes, *self._bury(worker)] if dead else outcomes

    def _bury(self, worker: _Worker) -> list[Outcome]:
        """Closes what a dead worker left open, and starts another in its place.

        Raises:
            MechError: too many have died without having been given any work.
        """
        with suppress(OSError):
            worker.process.kill()  # it may only have lost its fork server
        self._pool.remove(worker)
        worker.connection.close()
        worker.process.join(timeout=_JOIN_SECONDS)
        with open_history(self.project.home) as instance:
            close_orphans(instance)
        if worker.task is None:
            self._died_idle += 1
            if self._died_idle > _MAY_DIE_IDLE:
                raise MechError(
                    "worker processes die before they are given work", "free memory, or use fewer --workers"
                )
        self._start_worker()
        if worker.task is None:
            return []
        error = f"{worker.task.stage} of {_subject(worker.task)}: its process died (out of memory?)"
        return [Outcome(worker.task, error, "run the same command again: it continues from what is kept")]

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
        return MechError(first.problem + more, first.next_step or f"the traceback is in {path}")

    def _start_workers(self) -> None:
        warm_up()
        for _ in range(self.workers):
            self._start_worker()

    def _start_worker(self) -> None:
        context = worker_context()
        ours, theirs = context.Pipe()
        arguments = (theirs, self.project, str(self.file.parent), os.getpid())
        process = context.Process(target=work, args=arguments, daemon=True)
        try:
            process.start()
        except (EOFError, OSError):  # the fork server, or the process, died meanwhile: once more, with a new server
            warm_up()
            process = context.Process(target=work, args=arguments, daemon=True)
            process.start()
        theirs.close()
        self._pool.append(_Worker(process, ours))

    def _stop(self) -> None:
        """Ends all workers: those that compute are killed, the others leave when their pipe closes."""
        for worker in self._pool:
            if worker.task is not None:
                worker.process.kill()
            worker.connection.close()
        deadline = time.monotonic() + _JOIN_SECONDS
        for worker in self._pool:
            worker.process.join(timeout=max(0.1, deadline - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
        self._pool = []


def _readers(stage: str) -> set[str]:
    """The stages that read a stage."""
    return {each.name for each in STAGES if any(read.stage == stage for read in each.inputs)}


def _subject(task: Task) -> str:
    """The run of a task, or the experiment."""
    return task.run or task.experiment
