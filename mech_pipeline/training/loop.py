"""Training and replay are the same loop: state t, batch t, gradient, update, state t + 1.

Bits depend on device, thread count, micro-batches and library versions, so all are recorded with a run. They do not
depend on the number of processes (`ranks.py`).
"""

import math
from collections.abc import Callable, Container, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mech_pipeline.data.example_weights import ExampleWeights
from mech_pipeline.data.order import Order, examples_at_step
from mech_pipeline.data.pool import Pool
from mech_pipeline.errors import MechError
from mech_pipeline.spec.training import Optimizer, Training
from mech_pipeline.training.attention import fused_attention
from mech_pipeline.training.flat import FlatModel
from mech_pipeline.training.many.ranks import Ranks, tree_sum_of
from mech_pipeline.training.many.stack import Batch, Together
from mech_pipeline.training.memory import named_out_of_memory
from mech_pipeline.training.model import example_losses
from mech_pipeline.training.update.muon import muon_update
from mech_pipeline.training.update.norm import norm_of_rows, row_squares
from mech_pipeline.training.update.optimizer import State, Vector, clip_factor, update
from mech_pipeline.training.update.schedule import learning_rate

T = TypeVar("T")
DIVERGED_NATS = 1e3
"""A mean loss beyond this is divergence; a uniform guess over a million tokens costs 14 nats."""


class Diverged(MechError):
    """Training left what numbers can hold at update `step`; what was kept before is good."""

    def __init__(self, run: str, step: int, loss: float, norm: float) -> None:
        self.step = step
        super().__init__(
            f"{run} diverged at update {step}: loss {loss:.6g}, gradient norm {norm:.6g}",
            "lower optimizer.learning_rate or clip_norm, or lengthen the warm-up",
        )


@dataclass(frozen=True)
class Update:
    """One update: the states around it, the batch gradient before clipping, and the batch.

    Attributes:
        examples: indices into the pool.
        loss: mean loss of the batch before the update, nats.
    """

    before: State
    after: State
    gradient: Vector
    examples: Int[Tensor, " example"]
    loss: float
    gradient_norm: float
    clip: float
    learning_rate: float


@dataclass
class Trainer:
    """Everything an update needs besides the state.

    Attributes:
        pool: token ids of all examples, [example, token].
        weights: weight of each pool example in its batch loss; none means 1. Only metasmoothness and tests set it.
        ranks: who shares the micro-batches.
        together: the runs that are trained in one stack with this one; none: it is a stack of its own.
        order: which examples each update sees; none: all alike, by the seed.
        example_weights: weights that belong to the data; they multiply `weights`.
        holding: what is done to the model in the forward pass of an update; none: nothing.
    """

    flat: FlatModel
    optimizer: Optimizer
    training: Training
    pool: Int[Tensor, "example token"] | Pool
    seed: int
    run: str = "run"
    weights: Float[Tensor, " example"] | None = None
    ranks: Ranks = field(default_factory=Ranks)
    together: Together | None = None
    order: Order | None = None
    example_weights: ExampleWeights | None = None
    holding: Callable[[int], AbstractContextManager[None]] | None = None

    def batch(self, step: int) -> Int[Tensor, " example"]:
        """Pool indices of update `step`."""
        if self.order is not None:
            return torch.from_numpy(self.order.at_step(step))
        return torch.from_numpy(examples_at_step(self.seed, step, pool_size=len(self.pool), batch=self.training.batch))

    def weights_at(self, step: int, examples: Int[Tensor, " example"]) -> Float[Tensor, " example"] | None:
        """Weight of each example's loss at update `step`; none if all are 1."""
        weights = None if self.weights is None else self.weights[examples].to(self.device)
        if self.example_weights is not None:
            own = self.example_weights.at(step, examples).to(self.device, self.flat.vector.dtype)
            weights = own if weights is None else weights * own
        return weights

    def held(self, step: int) -> AbstractContextManager[None]:
        """While the block runs, the model is as update `step` computes with it."""
        return nullcontext() if self.holding is None else self.holding(step)

    def micro_batches(self, examples: Int[Tensor, " example"]) -> list[Int[Tensor, " part"]]:
        """A batch in the parts that get one backward each."""
        return list(examples.chunk(self.training.micro_batches))

    def tokens(self, examples: Int[Tensor, " example"]) -> Int[Tensor, "example token"]:
        """The examples' token ids, where the model is."""
        return self.pool[examples].to(self.device, non_blocking=True)

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.flat.vector.device

    def norm(self, gradient: Vector) -> float:
        """‖g‖ of a batch gradient."""
        if self.training.sharded:
            return norm_of_rows(row_squares(self.flat.slots, gradient))
        return float(torch.linalg.vector_norm(gradient))

    def step(self, state: State) -> Update:
        """One update.

        Raises:
            Diverged: the loss or gradient is not finite, or the loss is beyond all reason.
            MechError: memory is not enough.
        """
        examples = self.batch(state.step)

        def finish(gradient: Vector, loss: float) -> Update:
            return self.update_from(state, examples, gradient, loss)

        if self.training.stacked:
            return self._stacked(state.theta, examples, state.step, finish)
        return finish(*self.gradient(state.theta, examples, state.step))

    def update_from(self, state: State, examples: Int[Tensor, " example"], gradient: Vector, loss: float) -> Update:
        """The update that the gradient of a batch makes.

        Raises:
            Diverged: see `step`.
        """
        norm = self.norm(gradient)
        if not math.isfinite(norm) or not loss < DIVERGED_NATS:
            raise Diverged(self.run, state.step, loss, norm)
        clip = clip_factor(self.optimizer, norm)
        if self.optimizer.kind == "muon":
            after = muon_update(self.optimizer, state, gradient, clip, self.flat.slots)
        else:
            after = update(self.optimizer, state, gradient, clip)
        rate = learning_rate(self.optimizer, state.step)
        return Update(state, after, gradient, examples, loss, norm, clip, rate)

    def gradient(self, theta: Vector, examples: Int[Tensor, " example"], step: int) -> tuple[Vector, float]:
        """Gradient of the batch loss of update `step` at θ, and the loss, shared by all ranks."""
        if self.training.stacked:
            return self._stacked(theta, examples, step, lambda gradient, loss: (gradient, loss))
        self.flat.load(theta)
        parts = self.micro_batches(examples)
        losses: list[Tensor] = []

        def part_gradient(index: int) -> Tensor:
            loss = self.losses(parts[index], step).mean() / len(parts)
            losses.append(loss.detach())
            return self.flat.gradient(loss)

        each = len(parts) // self.ranks.count
        begin = self.ranks.rank * each
        with named_out_of_memory(self.run, len(parts[0]), self._fits):
            gradient = tree_sum_of(part_gradient, begin, begin + each)
        mine = tree_sum_of(lambda index: losses[index], 0, each)
        return self.ranks.tree_sum(gradient), float(self.ranks.tree_sum(mine[None]))

    def _stacked(
        self, theta: Vector, examples: Int[Tensor, " example"], step: int, finish: Callable[[Vector, float], T]
    ) -> T:
        """`finish` of the batch's gradient and loss, computed together with the other runs of the stack."""
        parts = self.micro_batches(examples)

        def weights(part: Int[Tensor, " example"]) -> Float[Tensor, " example"]:
            own = self.weights_at(step, part)
            return (torch.ones_like(part, dtype=theta.dtype) if own is None else own).to(theta.device)

        def batch() -> Batch:
            self.flat.load(theta)
            return [(self.tokens(part), weights(part)) for part in parts]

        with named_out_of_memory(self.run, len(parts[0]), self._fits):
            return (self.together or self._alone).compute(self.flat, theta, batch, finish)

    @cached_property
    def _alone(self) -> Together:
        return Together(1, 1, self.training.threads)

    @property
    def hooked(self) -> bool:
        """Whether the backward of an update runs through the modules of `flat.model`, where hooks see it."""
        return not (self.training.stacked or self.training.compile)

    def losses(self, examples: Int[Tensor, " example"], step: int) -> Float[Tensor, " example"]:
        """Loss of each example at the current parameters, with its weight at update `step`, in nats."""
        with self.held(step), self._precision(), fused_attention(self.training.attention == "fused"):
            losses = example_losses(self._forward, self.tokens(examples))
        weights = self.weights_at(step, examples)
        return losses if weights is None else losses * weights

    def updates(self, state: State, until: int, whole: Container[int] = ()) -> Iterator[Update]:
        """All updates from `state` until `until` updates have been made in all.

        Args:
            whole: steps whose states are needed; only a sharded trainer, whose other states are parts, asks.
        """
        while state.step < until:
            made = self.step(state)
            yield made
            state = made.after

    @cached_property
    def _forward(self) -> nn.Module:
        return cast(nn.Module, torch.compile(self.flat.model)) if self.training.compile else self.flat.model

    def _precision(self) -> AbstractContextManager[object]:
        if self.training.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def _fits(self, examples: int) -> bool:
        """Whether a forward and backward of that many examples finds memory."""
        try:
            self.flat.gradient(self.losses(torch.arange(examples) % len(self.pool), step=0).mean())
        except (torch.OutOfMemoryError, MemoryError, RuntimeError):
            return False
        return True
