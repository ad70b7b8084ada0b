"""Scores ⟨∇ℓ_i, V_k⟩ of every example of a batch, from the backward of the training step itself.

No forward or backward is added, and not a bit of training changes: hooks read each module's input and output gradient
as they pass, contract them at once and keep nothing but scores. With V = −(η κ / r₁) D ⊙ ∇M(θ_anchor)
(`step_directions`), the score times c / B is what example i's gradient does to M in this update to first order: the
ledger's quantity, with ∇M and D as they were at the anchor instead of now, and momentum left out. It explains this
update; it does not predict what leaving the example out would do.

Cost beside a step, one direction: all components 28 %, attention 7 %, one head 2 % (2 layers, width 128, vocabulary
2,048); 34, 20 and 10 % of the demo's small steps; eight directions cost a third more than one. A direction over all
parameters is one more matrix product beside the three of each layer; forming per-example weight gradients instead of the
batch's would cost less and change the bits of training. Measured by `benchmarks/attribution.py`.
Source: Wang et al. 2024 (In-Run Data Shapley), Pruthi et al. 2020 (TracIn).
"""

from collections.abc import Callable
from types import TracebackType

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from mech_pipeline.attribution.per_example.contraction import Contraction
from mech_pipeline.errors import MechError
from mech_pipeline.spec.training import Optimizer
from mech_pipeline.training.loop import Trainer
from mech_pipeline.training.update.optimizer import State, coefficients, scaling


class InTraining:
    """While active, scores the examples of the update that the trainer makes.

        scoring = InTraining(trainer, Contraction(flat, components, only=["L1H*.K"]), directions)
        with scoring:
            made = trainer.step(state)
        scores = scoring.scores()  # one row per example in made.examples

    It may stay active over many updates if scores are taken after each, and nothing else runs the model with gradients.

    Args:
        contraction: says which components count, and so which modules are listened to.

    Attributes:
        directions: V_k; assign new ones at an anchor, between updates.

    Raises:
        MechError: the trainer's backward does not run through modules, where hooks see it.
    """

    def __init__(
        self, trainer: Trainer, contraction: Contraction, directions: Float[Tensor, "direction parameter"]
    ) -> None:
        if not trainer.hooked or trainer.training.sharded:
            raise MechError(
                "scores during training need a backward through the model's modules",
                "set training.stacked, training.compile and training.sharded to false",
            )
        self.directions = directions
        self._trainer, self._contraction = trainer, contraction
        self._totals: list[Tensor] = []
        self._hooks: list[RemovableHandle] = []

    def __enter__(self) -> "InTraining":
        model = self._trainer.flat.model
        modules = dict(model.named_modules())
        self._hooks = [model.register_forward_pre_hook(self._begin)]
        self._hooks += [modules[name].register_forward_hook(self._listen(name)) for name in self._contraction.modules]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for hook in self._hooks:
            hook.remove()

    def scores(self) -> Float[Tensor, "direction example component"]:
        """⟨∇ℓ_i, V_k⟩ of the update since the last call, times the example's weight if it has one.

        Rows are the update's examples in their order; with several ranks, those of this rank's micro-batches.
        """
        totals, self._totals = self._totals, []
        parts = self._trainer.training.micro_batches  # the loss was a mean over each of these, divided by their number
        assert len(totals) * self._trainer.ranks.count == parts, "one update, and nothing else, since the last call"
        return torch.cat([total * (total.shape[1] * parts) for total in totals], dim=1)

    def _begin(self, _model: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if torch.is_grad_enabled():
            shape = (len(self.directions), len(inputs[0]), len(self._contraction.names))
            self._totals.append(torch.zeros(shape, dtype=torch.float64, device=self.directions.device))

    def _listen(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def forward_hook(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if not output.requires_grad:
                return
            value, total = inputs[0].detach(), self._totals[-1]
            output.register_hook(
                lambda gradient: self._contraction.add(total, name, value, gradient.detach(), self.directions)
            )

        return forward_hook


def step_directions(
    spec: Optimizer, state: State, gradients: Float[Tensor, "direction parameter"]
) -> Float[Tensor, "direction parameter"]:
    """−(η κ / r₁) D ⊙ ∇M at an anchor state: the change of M per unit of gradient that enters the next update.

    Args:
        gradients: ∇M_k at the anchor.

    Raises:
        ValueError: there is no second moment yet (step 0 of Adam), or the optimizer's step is not of this form (Muon).
    """
    if spec.kind == "muon" or (spec.kind != "sgd" and state.step == 0):
        raise ValueError(f"no diagonal scaling at step {state.step} of {spec.kind}; take a later anchor of Adam or SGD")
    c = coefficients(spec, state.step)
    return -(c.learning_rate * c.kappa / c.r1) * scaling(spec, state.v, max(state.step - 1, 0)) * gradients
