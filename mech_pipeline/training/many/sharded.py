"""Training of models too large for every process to hold: weights, gradients and moments are split among the ranks.

Micro-batch j P + r belongs to rank r of P, so the j-th backward of all ranks together is one subtree of the sum over
all micro-batches (`ranks.py`), and a sharded run has the same bits for any number of ranks, one included. Every rank
updates its own rows. Whole states exist only where they are asked for, on the CPU: to start from, and to be kept.
"""

from collections.abc import Container, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Int
from torch import Tensor, nn

from mech_pipeline.training.loop import Trainer, Update
from mech_pipeline.training.many.ranks import tree_sum, tree_sum_of
from mech_pipeline.training.many.shards import Part, Shards
from mech_pipeline.training.memory import named_out_of_memory
from mech_pipeline.training.update.optimizer import State, Vector


@dataclass
class ShardedTrainer(Trainer):
    """A trainer whose updates hold this rank's rows; `flat` is the whole model, on the CPU."""

    def updates(self, state: State, until: int, whole: Container[int] = ()) -> Iterator[Update]:
        """All updates from a whole `state` on. Every rank gives the same arguments.

        Args:
            whole: steps whose state is made whole, on rank 0; all other states are parts.
        """
        shards = self.shards
        mine = State(state.step, shards.part(state.theta), shards.part(state.m), shards.part(state.v))
        while mine.step < until:
            made = self.step(mine)
            mine = made.after
            yield replace(made, after=self._whole(mine)) if mine.step in whole else made

    def gradient(self, theta: Part, examples: Int[Tensor, " example"], step: int) -> tuple[Part, float]:
        """This rank's rows of the batch gradient, and the batch loss."""
        self.shards.load(theta)
        parts = self.micro_batches(examples)
        losses: list[Tensor] = []

        def part_gradient(turn: int) -> Part:
            loss = self.losses(parts[turn * self.ranks.count + self.ranks.rank], step).mean() / len(parts)
            losses.append(loss.detach()[None])
            return self.shards.gradient(loss)

        with named_out_of_memory(self.run, len(parts[0]), lambda examples: False):  # trying less needs all ranks
            gradient = tree_sum_of(part_gradient, 0, len(parts) // self.ranks.count)
        return gradient, float(tree_sum([self.ranks.tree_sum(loss) for loss in losses]))

    def norm(self, gradient: Vector) -> float:
        """‖g‖ of the whole gradient, from each rank's rows."""
        return self.shards.norm(gradient)

    @cached_property
    def shards(self) -> Shards:
        """This rank's part of the model, where the rank computes."""
        return Shards(self.flat, self.ranks)

    @property
    def device(self) -> torch.device:
        """Where batches go."""
        return self.ranks.device

    @property
    def _forward(self) -> nn.Module:
        return self.shards.model

    def _whole(self, part: State) -> State:
        theta, m, v = (self.shards.whole(each) for each in (part.theta, part.m, part.v))
        return part if theta is None or m is None or v is None else State(part.step, theta, m, v)
