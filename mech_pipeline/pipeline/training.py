"""Training: fills the planned checkpoints, resuming from the nearest one that is there.

A fresh run, a resume after kill -9, a longer run, a denser plan and a zoom are the same act: start at the last
checkpoint before the first missing one, train until the last missing one, and skip from one gap to the next where
there are checkpoints in between. Replayed states that are already kept are compared with their hashes on the way.
"""

from collections.abc import Callable

from mech_pipeline.errors import MechError
from mech_pipeline.pipeline.publisher import OnCheckpoint, Publisher, metrics_of
from mech_pipeline.pipeline.run import OpenRun, current_checkpoints
from mech_pipeline.progress import Note, Progress, format_count
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.store.catalog import connect
from mech_pipeline.store.store import Store
from mech_pipeline.training.device import computing
from mech_pipeline.training.loop import Diverged
from mech_pipeline.training.optimizer import State
from mech_pipeline.training.ranks import ALONE, Ranks

Emit = Callable[[str], None]


def missing_checkpoints(store: Store, spec: RunSpec) -> list[int]:
    """Planned steps without a current checkpoint, or without the metrics of the updates that lead to it."""
    present = current_checkpoints(store, spec)
    if not present:
        return list(spec.checkpoint_steps())
    measured = _measured_updates(store, spec.run)
    steps = list(spec.checkpoint_steps())
    before = dict(zip(steps[1:], steps, strict=False))
    return [
        step for step in steps if step not in present or not measured.issuperset(range(before.get(step, step), step))
    ]


def _measured_updates(store: Store, run: str) -> set[int]:
    with connect(store.root, ["training_metrics"]) as connection:
        rows = connection.execute(
            "select step from training_metrics where run = ? and metric = 'loss_nats'", [run]
        ).fetchall()
    return {row[0] for row in rows}


def train(
    store: Store,
    spec: RunSpec,
    on_checkpoint: OnCheckpoint = lambda saved: None,
    emit: Emit = lambda line: None,
    ranks: Ranks = ALONE,
) -> int:
    """Trains what is missing of a run; returns the number of checkpoints written.

    Args:
        on_checkpoint, emit: called in the process that keeps the checkpoints, rank 0.
        ranks: the processes that share the work, all of which call this.

    Raises:
        MechError: another process trains this run, training diverged, or a replayed state differs from the kept one.
    """
    with computing(spec.training):
        if ranks.rank > 0:
            return _follow(OpenRun(store, spec, ranks))
        with store.lock(f"training-{spec.run}", f"train run {spec.run}"):
            missing = missing_checkpoints(store, spec)
            run = OpenRun(store, spec, ranks)
            stretches = gaps(missing, list(run.checkpoints))
            ranks.tell([number for start, steps in stretches for number in (start, steps[-1])])
            if stretches:
                _lead(run, stretches, on_checkpoint, emit)
            return len(missing)


def _follow(run: OpenRun) -> int:
    """Computes this rank's micro-batches of what rank 0 says is to be trained."""
    told = run.trainer.ranks.hear()
    for start, last in zip(told[::2], told[1::2], strict=True):
        for _ in run.trainer.updates(_start(run, start), last):
            pass
    return 0


def _start(run: OpenRun, start: int) -> State:
    return State.initial(run.trainer.flat.vector) if start < 0 else run.state(start)


def gaps(missing: list[int], kept: list[int]) -> list[tuple[int, list[int]]]:
    """(where to start, steps to fill) per stretch of training that fills what is missing.

    −1: start from the initial state. A kept checkpoint between two gaps is jumped to, not trained to.

    >>> gaps([3, 4, 9], kept=[0, 2, 5, 8])
    [(2, [3, 4]), (8, [9])]
    """
    found: list[tuple[int, list[int]]] = []
    for step in missing:
        start = max((k for k in kept if k < step), default=-1)
        if found and found[-1][1][-1] >= start:
            found[-1][1].append(step)
        else:
            found.append((start, [step]))
    return found


def _lead(run: OpenRun, stretches: list[tuple[int, list[int]]], on_checkpoint: OnCheckpoint, emit: Emit) -> None:
    updates = sum(steps[-1] - max(start, 0) for start, steps in stretches)
    progress = Progress(emit, f"train {run.spec.run}", updates, "updates")
    if stretches[0][0] >= 0:
        first, last = stretches[0][0], stretches[-1][1][-1]
        emit(f"train {run.spec.run}: found checkpoint {first}, continuing to {last}")
    with Publisher(run, on_checkpoint) as publisher:
        done = 0
        for start, steps in stretches:
            done = _stretch(run, _start(run, start), set(steps), publisher, progress, done)


def _stretch(run: OpenRun, state: State, missing: set[int], publisher: Publisher, progress: Progress, done: int) -> int:
    """Trains from a state until the last missing step; returns the number of updates done in all."""
    tokens = run.spec.training.batch * (run.tokens.pool.shape[1] - 1)
    metrics, good = [], state.step
    if state.step in missing:
        publisher.offer(state, [])
    try:
        for made in run.trainer.updates(state, max(missing)):
            metrics.append(metrics_of(made))
            step, done = made.after.step, done + 1
            if step in run.checkpoints:
                run.verify(made.after)
            if step in missing:
                publisher.offer(made.after, metrics)
            if step in missing or step in run.checkpoints:
                metrics, good = [], step
            progress(done, _note(made.loss, tokens))
    except Diverged as error:
        raise MechError(
            f"{error.problem}; checkpoint {good} is the last good one and is kept", error.next_step
        ) from error
    return done


def _note(loss: float, tokens: int) -> Note:
    return lambda rate: f"loss {loss:.3f} nats, {format_count(rate * tokens)} tokens/s"
