"""Training and replay are the same loop: state t, batch t, gradient, update, state t + 1.

Bits depend on device, thread count and library versions, so all three are recorded with a run.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mech_pipeline.data.order import examples_at_step
from mech_pipeline.errors import MechError
from mech_pipeline.spec.training import Optimizer, Training
from mech_pipeline.training.flat import FlatModel
from mech_pipeline.training.model import example_losses
from mech_pipeline.training.optimizer import State, Vector, clip_factor, coefficients, update


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
    """

    flat: FlatModel
    optimizer: Optimizer
    training: Training
    pool: Int[Tensor, "example token"]
    seed: int
    run: str = "run"
    weights: Float[Tensor, " example"] | None = None

    def batch(self, step: int) -> Int[Tensor, " example"]:
        """Pool indices of update `step`."""
        return torch.from_numpy(examples_at_step(self.seed, step, pool_size=len(self.pool), batch=self.training.batch))

    def step(self, state: State) -> Update:
        """One update.

        Raises:
            MechError: loss or gradient is not finite.
        """
        examples = self.batch(state.step)
        self.flat.load(state.theta)
        losses = example_losses(self.flat.model, self.pool[examples])
        if self.weights is not None:
            losses = losses * self.weights[examples]
        loss = losses.mean()
        gradient = self.flat.gradient(loss)
        norm = float(torch.linalg.vector_norm(gradient))
        if not math.isfinite(norm) or not math.isfinite(loss.item()):
            raise MechError(
                f"{self.run} diverged at update {state.step}: loss {loss.item()}, gradient norm {norm}",
                "earlier checkpoints are kept; lower optimizer.learning_rate or clip_norm",
            )
        rate = coefficients(self.optimizer, state.step).learning_rate
        after = update(self.optimizer, state, gradient)
        return Update(state, after, gradient, examples, loss.item(), norm, clip_factor(self.optimizer, gradient), rate)

    def updates(self, state: State, until: int) -> Iterator[Update]:
        """All updates from `state` until `until` updates have been made in all."""
        while state.step < until:
            made = self.step(state)
            yield made
            state = made.after


@contextmanager
def compute_threads(threads: int) -> Iterator[None]:
    """Runs the block with exactly this many CPU threads: the thread count decides the order of sums, hence the bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
