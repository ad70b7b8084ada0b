"""Counterfactual retrainings in one thread: as a stack, or one after another.

In a stack one update moves the whole [retraining, parameter] matrix: updates work element by element, so a matrix is a
long vector to them. Clipping is per row. A row that diverges leaves the stack. Bits of a row depend neither on that nor
on its company (`training/many/stack.py`). For this every row is given the tokens as its own: mapped over shared tokens, a
stack of one takes another way through the matrix products.
"""

import copy
import dataclasses
import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from mech_pipeline.training.flat import FlatModel
from mech_pipeline.training.loop import DIVERGED_NATS, Diverged, Trainer
from mech_pipeline.training.many.ranks import tree_sum_of
from mech_pipeline.training.many.stack import StackedGradient
from mech_pipeline.training.update.optimizer import State, Vector, clip_factor, update

Kept = Bool[Tensor, "retraining example"]
"""Which examples of the pool have a weight, in each retraining."""


@dataclass
class Counterfactuals:
    """What all stacks of one call share.

    Attributes:
        start: state from which on removed examples have no weight.
        stopped: set when nobody waits for results any more.
        done: updates so far, over all retrainings.
    """

    trainer: Trainer
    start: State
    until: int
    stopped: threading.Event = field(default_factory=threading.Event)
    done: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def advance(self, updates: int) -> None:
        """Counts updates of one stack."""
        with self._lock:
            self.done += updates

    def examples(self, step: int) -> Int[Tensor, " example"]:
        """Pool indices of an update."""
        with self._lock:  # the order of a mixture counts as it goes
            return self.trainer.batch(step)

    def batch(self, step: int) -> list[tuple[Int[Tensor, " example"], Int[Tensor, "example token"], Tensor | None]]:
        """(pool indices, tokens, the run's own weights) of each micro-batch of an update."""
        parts = self.trainer.micro_batches(self.examples(step))
        return [(part, self.trainer.tokens(part), self.trainer.weights_at(step, part)) for part in parts]


def retrain_stack(common: Counterfactuals, removed: Sequence[NDArray[np.int64]]) -> list[Vector | None]:
    """θ at the end of each retraining; none if it diverged."""
    trainer, start = common.trainer, common.start
    gradient_of, kept = StackedGradient(trainer.flat), _kept(trainer, removed)
    alive = list(range(len(removed)))
    state = State(start.step, *(vector.repeat(len(removed)) for vector in (start.theta, start.m, start.v)))
    while state.step < common.until and alive and not common.stopped.is_set():
        gradients, losses = _gradients(common, gradient_of, state, kept)
        norms = [trainer.norm(gradient) for gradient in gradients]
        sound = [math.isfinite(n) and loss < DIVERGED_NATS for n, loss in zip(norms, losses.tolist(), strict=True)]
        if not all(sound):
            state, gradients, kept = _sound_rows(state, gradients, kept, sound)
            alive = [row for row, ok in zip(alive, sound, strict=True) if ok]
            norms = [norm for norm, ok in zip(norms, sound, strict=True) if ok]
        clip = gradients.new_tensor([clip_factor(trainer.optimizer, norm) for norm in norms])
        state = update(trainer.optimizer, state, (gradients * clip[:, None]).reshape(-1), 1.0)
        common.advance(len(removed))
    common.advance(len(removed) * (common.until - state.step))
    ends = dict(zip(alive, state.theta.view(len(alive), -1), strict=True)) if alive else {}
    return [ends.get(row) for row in range(len(removed))]


def retrain_alone(common: Counterfactuals, removed: Sequence[NDArray[np.int64]]) -> list[Vector | None]:
    """The same, one after another, in the arithmetic of the run itself: without removal it is the run, bit for bit."""
    trainer, ends = common.trainer, list[Vector | None]()
    flat = FlatModel(copy.deepcopy(trainer.flat.model))  # its own: parameters are set for every gradient
    for kept in _kept(trainer, removed):
        weights, own = kept.to(trainer.device, flat.vector.dtype), trainer.weights
        again = dataclasses.replace(trainer, flat=flat, weights=weights if own is None else weights * own)
        state: State = common.start
        try:
            while state.step < common.until and not common.stopped.is_set():
                examples = common.examples(state.step)
                gradient, loss = again.gradient(state.theta, examples, state.step)
                state = again.update_from(state, examples, gradient, loss).after
                common.advance(1)
            ends.append(state.theta)
        except Diverged:
            common.advance(common.until - state.step)
            ends.append(None)
    return ends


def _kept(trainer: Trainer, removed: Sequence[NDArray[np.int64]]) -> Kept:
    kept = torch.ones(len(removed), len(trainer.pool), dtype=torch.bool)
    for row, examples in zip(kept, removed, strict=True):
        row[torch.from_numpy(examples)] = False
    return kept


def _gradients(
    common: Counterfactuals, gradient_of: StackedGradient, state: State, kept: Kept
) -> tuple[Float[Tensor, "retraining parameter"], Float[Tensor, " retraining"]]:
    """Gradients and losses of a whole batch, micro-batches added in the tree of `ranks.py`."""
    thetas = state.theta.view(len(kept), -1)
    batch = common.batch(state.step)
    losses: list[Tensor] = []

    def part(index: int) -> Tensor:
        examples, tokens, own = batch[index]
        weights = kept[:, examples].to(thetas.device, thetas.dtype)
        shared = tokens.expand(len(kept), -1, -1)
        gradients, values = gradient_of(thetas, shared, weights if own is None else weights * own)
        losses.append(values / len(batch))
        return gradients / len(batch)

    gradients = tree_sum_of(part, 0, len(batch))
    return gradients, tree_sum_of(lambda index: losses[index], 0, len(batch))


def _sound_rows(
    state: State, gradients: Float[Tensor, "retraining parameter"], kept: Kept, sound: list[bool]
) -> tuple[State, Float[Tensor, "sound parameter"], Bool[Tensor, "sound example"]]:
    """The stack without retrainings that left what numbers can hold."""
    rows = torch.tensor(sound)
    there = rows.to(gradients.device)
    parts = (vector.view(len(sound), -1)[there].reshape(-1) for vector in (state.theta, state.m, state.v))
    return State(state.step, *parts), gradients[there], kept[rows]
