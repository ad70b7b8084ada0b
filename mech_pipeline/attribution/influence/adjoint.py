"""The reverse of one optimizer update, in closed form, for several targets at once.

With λ_θ, λ_m, λ_v the adjoints of the state after update t (notation of `training/update/optimizer.py`, v̂ = v'/r₂):

    μ_m = λ_m − (η / r₁) D λ_θ
    μ_v = λ_v + (η m' / r₁) D² / (2 r₂ √(v̂ + ε_root)) λ_θ         (0 where the root is 0)
    û   = κ μ_m + 2 (1 − β₂) ĝ μ_v                                (adjoint of ĝ, what enters the moments)
    u   = c (û − g ⟨g, û⟩ / ‖g‖²) if clipped, else û              (adjoint of the batch gradient: one rank-1 term)
    ∂M/∂w_ij = ⟨∇ℓ_ij, u⟩ / (B (T−1))                             (example i, target token j; summed over j: ⟨∇ℓ_i, u⟩ / B)
    λ_θ ← (1 − η λ_d) λ_θ + λ_c û + H u        λ_m ← β μ_m        λ_v ← β₂ μ_v

H is the Hessian of the batch loss. Scores and H u come out of one double backward with the weights as leaves.
Source: MAGIC (Ilyas & Engstrom 2025) and replayed metagradients (Engstrom et al. 2025); the closed form needs
no stored per-example gradients and stays finite where √v̂ = 0. Attention must be twice differentiable.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mech_pipeline.attribution.influence.gradient_graph import GradientGraph
from mech_pipeline.spec.training import Optimizer
from mech_pipeline.training.loop import Trainer, Update
from mech_pipeline.training.update.optimizer import Vector, coefficients, entering, scaling

Rows = Float[Tensor, "target parameter"]


@dataclass(frozen=True)
class Adjoint:
    """Derivatives of M(θ_T) by the state at some step, one row per target."""

    theta: Rows
    m: Rows
    v: Rows

    @classmethod
    def at_target(cls, gradients: Rows) -> "Adjoint":
        """M depends on θ_T only."""
        return cls(gradients.clone(), torch.zeros_like(gradients), torch.zeros_like(gradients))

    def joined(self, other: "Adjoint") -> "Adjoint":
        """The rows of both."""
        return Adjoint(*(torch.cat([getattr(self, f), getattr(other, f)]) for f in ("theta", "m", "v")))

    def rows(self, chosen: Bool[Tensor, " target"]) -> "Adjoint":
        """Some rows only."""
        return Adjoint(self.theta[chosen], self.m[chosen], self.v[chosen])

    def norms(self) -> Float[Tensor, " target"]:
        """‖λ_θ‖ of every target, in double precision."""
        return torch.linalg.vector_norm(self.theta.double(), dim=1)

    def finite(self) -> Bool[Tensor, " target"]:
        """Which targets' adjoints are still numbers."""
        return torch.stack([self.theta, self.m, self.v]).isfinite().all(dim=2).all(dim=0)


@dataclass(frozen=True)
class Reversed:
    """What one reversed update gives.

    Attributes:
        tokens: ∂M/∂w_ij, of target tokens 1 … T−1 of the batch's examples.
        direction: u; an example's score is ⟨∇ℓ_i, u⟩ / B, in any split of the parameters.
        adjoint: of the state before the update.
    """

    tokens: Float[Tensor, "target example token"]
    direction: Rows
    adjoint: Adjoint


def reverse_update(trainer: Trainer, made: Update, adjoint: Adjoint, graph: GradientGraph | None = None) -> Reversed:
    """∂M/∂w for the examples of one update, and the adjoint before it.

    Cost: two training steps per target, and one for the graph.

    Args:
        graph: of the update's gradient, if a replay has kept it; it is freed.
    """
    spec = trainer.optimizer
    c = coefficients(spec, made.before.step)
    entered, mu_m, mu_v = _adjoint_of_entering(spec, made, adjoint)
    u = _adjoint_of_gradient(made, entered)
    if graph is None:
        graph = GradientGraph(trainer, made.before.theta, made.examples, made.before.step)
    tokens, hessian_u = graph.pull(u)
    theta = (1 - c.learning_rate * c.decay) * adjoint.theta + hessian_u
    if c.coupled_decay:
        theta = theta + c.coupled_decay * entered
    beta2 = 1.0 if spec.kind == "sgd" else spec.beta2
    return Reversed(tokens, u, Adjoint(theta, c.beta * mu_m, beta2 * mu_v))


def _adjoint_of_entering(spec: Optimizer, made: Update, adjoint: Adjoint) -> tuple[Rows, Rows, Rows]:
    """û, μ_m, μ_v."""
    c = coefficients(spec, made.before.step)
    d = scaling(spec, made.after.v, made.before.step)
    mu_m = adjoint.m - (c.learning_rate / c.r1) * d * adjoint.theta
    if spec.kind == "sgd":
        return c.kappa * mu_m, mu_m, adjoint.v
    root = torch.sqrt(made.after.v / c.r2 + spec.eps_root)
    slope = torch.where(root > 0, d.square() / (2 * c.r2 * root), torch.zeros_like(root))
    mu_v = adjoint.v + (c.learning_rate / c.r1) * made.after.m * slope * adjoint.theta
    moved = entering(spec, made.before, made.gradient, made.clip)
    return c.kappa * mu_m + 2 * (1 - spec.beta2) * moved * mu_v, mu_m, mu_v


def _adjoint_of_gradient(made: Update, entered: Rows) -> Rows:
    """u: back through the clip."""
    if made.clip == 1:
        return entered
    g: Vector = made.gradient
    return made.clip * (entered - torch.outer((entered @ g) / (g @ g), g))
