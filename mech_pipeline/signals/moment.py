"""What a signal may look at: one checkpoint, the one before, and a fixed sample of the run's training examples.

The sample is drawn once for a pool and is the same at every checkpoint, so that values differ by training alone. Neither
mechanisms nor probe data are part of it. Costs: losses one forward of the sample; gradients one backward for each of the
first GRADIENTS examples, held together, [example, parameter].
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mech_pipeline.attribution.per_example.any_model import gradients_together
from mech_pipeline.training.flat import FlatModel
from mech_pipeline.training.model import example_losses, next_token_losses
from mech_pipeline.training.update.optimizer import Vector

SAMPLE, GRADIENTS = 256, 48
"""Examples whose losses are looked at, and those of them whose gradients are."""
RARE = 0.02
"""Share of the sample's targets that its rarest tokens are, at least."""


@dataclass
class Moment:
    """A moment of training; the model holds the weights of the checkpoint.

    Attributes:
        before: weights of the checkpoint before; none at the first.
        second_moment: the optimizer's, as it is stored; none where the checkpoint has none or nothing was trained yet.
        sample: the examples that signals look at.
        component_index: of each parameter, the number of its component.
    """

    step: int
    flat: FlatModel
    theta: Vector
    before: Vector | None
    second_moment: Vector | None
    sample: Int[Tensor, "example token"]
    component_index: Int[Tensor, " parameter"]

    @property
    def model(self) -> nn.Module:
        """Tokens to logits."""
        return self.flat.model

    @property
    def displacement(self) -> Vector | None:
        """What training added to the weights since the checkpoint before."""
        return None if self.before is None else self.theta - self.before

    @cached_property
    def token_losses(self) -> Float[Tensor, "example target"]:
        """−log p of every token of the sample but the first, nats."""
        with torch.no_grad():
            return next_token_losses(self.model, self.sample).double()

    @cached_property
    def losses(self) -> Float[Tensor, " example"]:
        """Mean loss of each example of the sample, nats."""
        return self.token_losses.mean(1)

    @cached_property
    def losses_before(self) -> Float[Tensor, " example"] | None:
        """The same at the checkpoint before."""
        if self.before is None:
            return None
        with torch.no_grad():
            return self._at(self.before, lambda: next_token_losses(self.model, self.sample).double().mean(1))

    @cached_property
    def rare_targets(self) -> Bool[Tensor, "example target"]:
        """Where the sample's rarest tokens are targets: as many tokens as make up a share RARE of all targets."""
        targets = self.sample[:, 1:]
        counts = torch.bincount(targets.flatten())
        there = counts.nonzero().flatten()
        order = there[counts[there].argsort(stable=True)]
        enough = int((counts[order].cumsum(0) < RARE * targets.numel()).sum()) + 1
        return torch.isin(targets, order[:enough])

    @cached_property
    def gradients(self) -> Float[Tensor, "example parameter"]:
        """∇ℓ_i of the first examples of the sample."""
        names = [slot.name for slot in self.flat.slots]
        found = gradients_together(self.flat, names, self.sample[:GRADIENTS])
        return torch.cat([found[name].flatten(1) for name in names], dim=1)

    @cached_property
    def gram(self) -> Float[Tensor, "example example"]:
        """⟨∇ℓ_i, ∇ℓ_j⟩, in float64."""
        rows = self.gradients.double()
        return rows @ rows.T

    @cached_property
    def mean_gradient(self) -> Vector:
        """∇ of the mean loss of these examples."""
        return self.gradients.mean(0)

    def gradient_at(self, theta: Vector, examples: slice) -> Vector:
        """∇ of the mean loss of some examples of the sample at other weights."""
        return self._at(theta, lambda: self.flat.gradient(example_losses(self.model, self.sample[examples]).mean()))

    def loss_at(self, theta: Vector) -> float:
        """Mean loss of the sample at other weights, nats."""
        with torch.no_grad():
            return float(self._at(theta, lambda: example_losses(self.model, self.sample).double().mean()))

    def _at(self, theta: Vector, compute: Callable[[], Tensor]) -> Tensor:
        self.flat.load(theta)
        try:
            return compute()
        finally:
            self.flat.load(self.theta)
