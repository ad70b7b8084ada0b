"""Training: fills the planned checkpoints, resuming from the nearest one that is there.

A fresh run, a resume after kill -9, a longer run, a denser plan and a zoom are the same act: start at the last
checkpoint before the first missing one, train until the last missing one, and skip from one gap to the next where
there are checkpoints in between. Replayed states that are already kept are compared with their hashes on the way.
"""

from dataclasses import dataclass

from mech_pipeline.errors import MechError
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.pipeline.training.branching import take_over
from mech_pipeline.pipeline.training.capture import captured_updates
from mech_pipeline.pipeline.training.publisher import (
    WAITING_BYTES,
    Metrics,
    OnCheckpoint,
    Publisher,
    metrics_of,
    state_bytes,
)
from mech_pipeline.pipeline.training.wanted import missing_checkpoints
from mech_pipeline.pipeline.training.watches import Watches
from mech_pipeline.progress import Emit, Note, Progress, format_count
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.store.store import Store
from mech_pipeline.training.device import computing
from mech_pipeline.training.loop import Diverged
from mech_pipeline.training.many.ranks import ALONE, Ranks
from mech_pipeline.training.many.stack import Together
from mech_pipeline.training.update.optimizer import State


def train(
    store: Store,
    spec: RunSpec,
    on_checkpoint: OnCheckpoint = lambda saved: None,
    emit: Emit = lambda line: None,
    ranks: Ranks = ALONE,
    together: Together | None = None,
) -> int:
    """Trains what is missing of a run; returns the number of checkpoints written.

    Args:
        on_checkpoint, emit: called in the process that keeps the checkpoints, rank 0.
        ranks: the processes that share the work, all of which call this.
        together: the runs that are trained in one stack, each in a thread that calls this (`stack.py`).

    Raises:
        MechError: another process trains this run, training diverged, or a replayed state differs from the kept one.
    """
    with computing(spec.training):
        if ranks.rank > 0:
            return _follow(OpenRun(store, spec, ranks))
        with store.lock(f"training-{spec.run}", f"train run {spec.run}"):
            taken = take_over(store, spec, on_checkpoint, emit)
            run = OpenRun(store, spec, ranks, together)
            watches = Watches.of(run, emit)
            if watches.over(spec.training.steps):
                watches.write(emit)
            made = taken + _train_missing(run, on_checkpoint, emit, watches)
            if watches.zoomed:
                run.refresh()
                made += _train_missing(run, on_checkpoint, emit, Watches([]))
            return made


def _train_missing(run: OpenRun, on_checkpoint: OnCheckpoint, emit: Emit, watches: Watches) -> int:
    """Fills what is to be kept now; returns how many states that was before it began."""
    ranks, missing = run.ranks, missing_checkpoints(run.store, run.spec)
    stretches = stretches_between(missing, list(run.checkpoints))
    ranks.tell([n for each in stretches for n in (each.start, each.until) * (1 + _checked_first(run, each))])
    ranks.tell(sorted(_needed_whole(run, stretches)))
    if stretches:
        _lead(run, stretches, on_checkpoint, emit, watches)
    return len(missing)


def _follow(run: OpenRun) -> int:
    """Computes this rank's micro-batches of what rank 0 says is to be trained."""
    told, whole = run.ranks.hear(), set(run.ranks.hear())
    for start, last in zip(told[::2], told[1::2], strict=True):
        for _ in run.trainer.updates(_start(run, start), last, whole):
            pass
    return 0


def _needed_whole(run: OpenRun, stretches: "list[Stretch]") -> set[int]:
    """The steps whose states are kept or compared."""
    return {*run.checkpoints, *(step for stretch in stretches for step in stretch.missing)}


def _start(run: OpenRun, start: int) -> State:
    return State.initial(run.trainer.flat.vector) if start < 0 else run.state(start)


@dataclass(frozen=True)
class Stretch:
    """Training from one state on.

    Attributes:
        start: the checkpoint to start from; −1: the initial state.
        missing: the steps to keep.
        until: the last update's end: the last missing step, or the next kept checkpoint after it, which tells whether
            the replay is that run.
    """

    start: int
    missing: list[int]
    until: int


def stretches_between(missing: list[int], kept: list[int]) -> list[Stretch]:
    """The training that fills what is missing. A kept checkpoint between two gaps is jumped to, not trained to.

    >>> stretches_between([3, 4, 9], kept=[0, 2, 5, 8])
    [Stretch(start=2, missing=[3, 4], until=5), Stretch(start=8, missing=[9], until=9)]
    """
    found: list[Stretch] = []
    for step in missing:
        start = max((k for k in kept if k < step), default=-1)
        until = min((k for k in kept if k >= step), default=step)
        if found and found[-1].until >= start:
            found[-1] = Stretch(found[-1].start, [*found[-1].missing, step], until)
        else:
            found.append(Stretch(start, [step], until))
    return found


def _lead(run: OpenRun, stretches: list[Stretch], on_checkpoint: OnCheckpoint, emit: Emit, watches: Watches) -> None:
    updates = sum(stretch.until - max(stretch.start, 0) for stretch in stretches)
    progress = Progress(emit, f"train {run.spec.run}", updates, "updates")
    if stretches[0].start >= 0:
        emit(f"train {run.spec.run}: found checkpoint {stretches[0].start}, continuing to {stretches[-1].until}")
    with Publisher(run, on_checkpoint) as publisher:
        done, whole = 0, _needed_whole(run, stretches)
        for stretch in stretches:
            if watches.over(stretch.start):
                break
            done = _fill(run, stretch, whole, publisher, progress, done, watches)
    if watches.ended:
        watches.write(emit)


def _fill(
    run: OpenRun,
    stretch: Stretch,
    whole: set[int],
    publisher: Publisher,
    progress: Progress,
    done: int,
    watches: Watches,
) -> int:
    """Trains one stretch and offers what is missing; returns the number of updates done in all.

    States before a kept checkpoint wait until it has been reached with the same bits; if they are too many to wait in
    memory, the stretch is trained twice, first to compare and then to keep.
    """
    checked = _checked_first(run, stretch)
    if checked:
        for made in run.trainer.updates(_start(run, stretch.start), stretch.until, whole):
            if made.after.step in run.checkpoints:
                run.verify(made.after)
    tokens = run.spec.training.batch * (run.tokens.pool.shape[1] - 1)
    state, missing = _start(run, stretch.start), set(stretch.missing)
    watches.sees(state)
    replayed = -1 if checked else max((step for step in run.checkpoints if step <= stretch.until), default=-1)
    waiting: list[tuple[State, list[Metrics]]] = [(state, [])] if state.step in missing else []
    metrics: list[Metrics] = []
    try:
        for made, captured in captured_updates(run, state, stretch.until, whole):
            metrics.append(metrics_of(made, captured))
            step, done = made.after.step, done + 1
            if step in run.checkpoints:
                run.verify(made.after)
            if step in missing:
                waiting.append((made.after, metrics))
            if step in missing or step in run.checkpoints:
                metrics = []
            if step >= replayed or step in run.checkpoints:
                waiting = _offered(waiting, publisher)
            progress(done, _note(made.loss, tokens))
            watches.sees(made.after)
            if watches.ended and step >= replayed:  # what waits for a kept state has been compared with it
                break
        _offered(waiting, publisher)
    except Diverged as error:
        good = max((s for s in {*run.checkpoints, *missing} if s <= error.step), default=0)
        raise MechError(
            f"{error.problem}; checkpoint {good} is the last good one and is kept", error.next_step
        ) from error
    return done


def _offered(waiting: list[tuple[State, list[Metrics]]], publisher: Publisher) -> list[tuple[State, list[Metrics]]]:
    for state, metrics in waiting:
        publisher.offer(state, metrics)
    return []


def _checked_first(run: OpenRun, stretch: Stretch) -> bool:
    """Whether the states of a replayed stretch are too large to wait in memory."""
    replayed = any(stretch.start < step <= stretch.until for step in run.checkpoints)
    return replayed and len(stretch.missing) * state_bytes(run.trainer.flat.vector) > WAITING_BYTES


def _note(loss: float, tokens: int) -> Note:
    return lambda rate: f"loss {loss:.3f} nats, {format_count(rate * tokens)} tokens/s"
