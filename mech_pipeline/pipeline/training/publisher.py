"""Checkpoints are written by a thread of their own while training goes on.

What has gathered since the last time is published together: metrics in one commit, then the files, then the rows that
make the checkpoints exist in another. So what is acknowledged is complete, at any moment, and a checkpoint every ten
updates costs a few per cent of training. A kill loses what was not published yet; it is trained again, bit for bit.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import Any

from mech_pipeline.pipeline.cells import Block, Cell, write
from mech_pipeline.pipeline.checkpoints import TRAINING_VERSION, checkpoint_fingerprint, provenance_columns
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.pipeline.training.capture import Captured, write_captured
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.store.care.registration import registration
from mech_pipeline.store.store import Store
from mech_pipeline.training.checkpoints import pack_state, state_sha256, vector_sha256
from mech_pipeline.training.loop import Update
from mech_pipeline.training.update.optimizer import State, Vector

PAUSE_SECONDS = 1.5
"""Between two commits: each costs some 60 ms of one CPU whatever it holds, and this is what a kill can cost."""
WAITING_BYTES = 2 << 30
"""States that may wait for the writer; training pauses while there are more."""


@dataclass(frozen=True)
class Saved:
    """A checkpoint that has just been published.

    Attributes:
        metrics: the numbers of the update that led to it (`metrics_of`); none for the initial state.
    """

    step: int
    data_version: str
    input_fingerprint: str
    metrics: dict[str, float]


OnCheckpoint = Callable[[Saved], None]


@dataclass(frozen=True)
class Metrics:
    """What is kept of one update besides its states: numbers, and scores of its examples if the run asks for them."""

    step: int
    values: dict[str, float]
    captured: Captured | None = None


@dataclass(frozen=True)
class _Waiting:
    """A state to publish, with the metrics of the updates that led to it."""

    state: State
    metrics: list[Metrics]


def metrics_of(made: Update, captured: Captured | None = None) -> Metrics:
    """What is kept of one update."""
    values = {
        "loss_nats": made.loss,
        "gradient_norm": made.gradient_norm,
        "clip_factor": made.clip,
        "learning_rate": made.learning_rate,
    }
    return Metrics(made.before.step, values, captured)


def state_bytes(theta: Vector) -> int:
    """Size of a state: weights and two moments."""
    return 3 * theta.numel() * theta.element_size()


class Publisher:
    """Publishes states in the background; leaving its block waits until all are published.

    Args:
        on_checkpoint: called for each published checkpoint, in the thread that trains.

    Raises:
        MechError: from `offer` or at the end of the block, whatever kept the writer from publishing.
    """

    def __init__(self, run: OpenRun, on_checkpoint: OnCheckpoint) -> None:
        self._run, self._on_checkpoint = run, on_checkpoint
        self._waiting: list[_Waiting] = []
        self._published: list[Saved] = []
        self._changed = threading.Condition()
        self._closing = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._write, name=f"publish {run.spec.run}", daemon=True)

    def __enter__(self) -> "Publisher":
        self._thread.start()
        return self

    def offer(self, state: State, metrics: list[Metrics]) -> None:
        """Hands a state over; waits only if too many wait already."""
        each = state_bytes(state.theta)
        kept = State(state.step, state.theta.cpu(), state.m.cpu(), state.v.cpu())
        with self._changed:
            self._changed.wait_for(lambda: self._error or len(self._waiting) * each < WAITING_BYTES)
            self._waiting.append(_Waiting(kept, metrics))
            self._changed.notify_all()
        self.acknowledge()

    def acknowledge(self) -> None:
        """Reports what has been published since the last call, and raises what went wrong."""
        with self._changed:
            published, self._published = self._published, []
        for saved in published:
            self._on_checkpoint(saved)
        if self._error is not None:
            raise self._error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()
        if error is None or error is not self._error:
            self.acknowledge()

    def _write(self) -> None:
        try:
            while waiting := self._take():
                saved = _publish(self._run, waiting)
                with self._changed:
                    self._published += saved
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: self._closing, PAUSE_SECONDS)
        except BaseException as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _take(self) -> list[_Waiting]:
        """Everything that waits; nothing at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._closing or self._waiting)
            waiting, self._waiting = self._waiting, []
            return waiting


def _publish(run: OpenRun, waiting: list[_Waiting]) -> list[Saved]:
    """Metrics and scores, then the files, then the rows that make the checkpoints exist."""
    measured = [(each.state.step, metrics) for each in waiting for metrics in each.metrics]
    if measured:
        _write_metrics(run, measured)
    for each in waiting:
        if captured := [metrics.captured for metrics in each.metrics if metrics.captured is not None]:
            write_captured(run, each.state.step, captured)
    blocks, saved = [], []
    for each in waiting:
        state = each.state
        made_from, version = checkpoint_fingerprint(run.training, state.step), state_sha256(state)
        block = checkpoint_block(
            run.store,
            run.spec,
            Block(Cell("checkpoints", run.spec.run, state.step), {}, made_from, version),
            vector_sha256(state.theta),
            partial(pack_state, state, run.trainer.flat),
        )
        blocks.append(block)
        saved.append(Saved(state.step, version, made_from, each.metrics[-1].values if each.metrics else {}))
    write(run.store, blocks, TRAINING_VERSION)
    return saved


def checkpoint_block(
    store: Store,
    spec: RunSpec,
    made: Block,
    weights_sha256: str,
    pack: Callable[[Mapping[str, str]], bytes],
    taken_from: str | None = None,
) -> Block:
    """Writes the file of a checkpoint; returns the row that makes it exist.

    Args:
        made: its cell, with fingerprint and version, without columns.
        pack: gives the file's content, with metadata.
        taken_from: the run that trained it, if that is another one.
    """
    step, version = made.cell.step, made.version
    assert step is not None, "a checkpoint is of a step"
    assert version is not None, "a state has a hash"
    described: dict[str, list[Any]] = {
        "weights_sha256": [weights_sha256],
        "cursor": [step * spec.training.batch],
        "taken_from": [taken_from],
    }
    rows: dict[str, list[Any]] = {
        "run": [spec.run],
        "step": [step],
        **described,
        **provenance_columns(1, made.made_from, version),
    }
    content = pack(registration("checkpoints", rows))
    blob = store.put_blob(f"checkpoints/run={spec.run}/step={step:08d}", "state.safetensors", content)
    columns = described | {"uri": [blob.uri], "bytes": [blob.bytes], "sha256": [blob.sha256]}
    return replace(made, columns=columns)


def _write_metrics(run: OpenRun, measured: list[tuple[int, Metrics]]) -> None:
    """One commit; the rows between two checkpoints share the provenance of the one they lead to."""
    blocks = []
    for leads_to in dict.fromkeys(leads_to for leads_to, _ in measured):
        rows = [
            (metrics.step, metric, value)
            for before, metrics in measured
            if before == leads_to
            for metric, value in metrics.values.items()
        ]
        columns = dict(zip(("step", "metric", "value"), map(list, zip(*rows, strict=True)), strict=True))
        made_from = checkpoint_fingerprint(run.training, leads_to)
        blocks.append(Block(Cell("training_metrics", run.spec.run), columns, made_from))
    write(run.store, blocks, TRAINING_VERSION, within={"step": [metrics.step for _, metrics in measured]})
