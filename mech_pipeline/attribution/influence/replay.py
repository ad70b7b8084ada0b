"""Replaying a window of training for a sweep backwards, keeping gradient graphs where memory allows.

A graph that the replay keeps need not be built again on the way back: a seventh of a sweep's time (docs/log.md). Only runs
whose training is the plain computation have one to keep: eager, fp32, math attention, weights of 0 and 1. Where its bits
differ from training after all (checked against the next checkpoint), the window is replayed the ordinary way.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from mech_pipeline.attribution.influence.gradient_graph import GradientGraph, graph_bytes
from mech_pipeline.training.loop import Trainer, Update
from mech_pipeline.training.update.optimizer import State

GRAPH_BYTES = 1536 << 20
"""Most memory for kept graphs; an eighth of the machine's, if that is less."""


@dataclass(frozen=True)
class Replayed:
    """One update, and the graph of its gradient if it was kept."""

    update: Update
    graph: GradientGraph | None = None


@dataclass
class Replayer:
    """Replays windows of one run.

    Args:
        state: reads a checkpoint.
        verify: raises if a replayed state is not the checkpoint of its step.
        is_same: whether a replayed state is the checkpoint of its step.
    """

    trainer: Trainer
    state: Callable[[int], State]
    verify: Callable[[State], None]
    is_same: Callable[[State], bool]
    _kept_graphs: int | None = field(default=None, init=False)

    def window(self, begin: int, end: int) -> list[Replayed]:
        """All updates between two checkpoints, first to last, verified bit for bit.

        Raises:
            MechError: the replay ended in another state than training did.
        """
        start = self.state(begin)
        if self._graphs(start):
            replayed = list(self._with_graphs(start, end))
            if self.is_same(replayed[-1].update.after):
                return replayed
            self._kept_graphs = 0
        updates = list(self.trainer.updates(start, end))
        self.verify(updates[-1].after)
        return [Replayed(update) for update in updates]

    def _with_graphs(self, state: State, end: int) -> Iterator[Replayed]:
        """The last updates of the window keep their graphs."""
        trainer = self.trainer
        for made in trainer.updates(state, max(state.step, end - self._graphs(state))):
            yield Replayed(made)
            state = made.after
        while state.step < end:
            examples = trainer.batch(state.step)
            graph = GradientGraph(trainer, state.theta, examples, state.step)
            made = trainer.update_from(state, examples, graph.gradient, graph.loss)
            yield Replayed(made, graph)
            state = made.after

    def _graphs(self, state: State) -> int:
        """How many graphs fit."""
        if self._kept_graphs is None:
            plain = self.trainer.training
            same = self.trainer.hooked and plain.precision == "fp32" and plain.attention == "math"
            usable = same and not _weighs(self.trainer) and not plain.sharded and plain.device == "cpu"
            self._kept_graphs = _budget() // graph_bytes(self.trainer, state.theta, state.step) if usable else 0
        return self._kept_graphs


def _weighs(trainer: Trainer) -> bool:
    """Whether an example has another weight than 0 or 1, which rounds differently in the graph."""
    weights = trainer.weights
    return trainer.example_weights is not None or (
        weights is not None and bool(((weights != 0) & (weights != 1)).any())
    )


def _budget() -> int:
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else GRAPH_BYTES * 8
    return min(GRAPH_BYTES, pages // 8)
