"""The reverse of one optimizer update, in closed form.

With λ_θ, λ_m, λ_v the adjoints of the state after update t (notation of `training/optimizer.py`, v̂ = v'/r₂):

    μ_m = λ_m − (η / r₁) D λ_θ
    μ_v = λ_v + (η m' / r₁) D² / (2 r₂ √(v̂ + ε_root)) λ_θ         (0 where the root is 0)
    û   = κ μ_m + 2 (1 − β₂) ĝ μ_v                                (adjoint of ĝ, what enters the moments)
    u   = c (û − g ⟨g, û⟩ / ‖g‖²) if clipped, else û              (adjoint of the batch gradient: one rank-1 term)
    ∂M/∂w_i = ⟨∇ℓ_i, u⟩ / B
    λ_θ ← (1 − η λ_d) λ_θ + λ_c û + H u        λ_m ← β μ_m        λ_v ← β₂ μ_v

H is the Hessian of the batch loss. Scores and H u come out of one double backward with the example weights as leaves.
Source: MAGIC (Ilyas & Engstrom 2025) and replayed metagradients (Engstrom et al. 2025); the closed form needs
no stored per-example gradients and stays finite where √v̂ = 0. Attention must be twice differentiable.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mech_pipeline.spec.training import Optimizer
from mech_pipeline.training.flat import flatten
from mech_pipeline.training.loop import Trainer, Update
from mech_pipeline.training.model import example_losses
from mech_pipeline.training.optimizer import Vector, coefficients, entering, scaling


@dataclass(frozen=True)
class Adjoint:
    """Derivatives of M(θ_T) by the state at some step."""

    theta: Vector
    m: Vector
    v: Vector

    @classmethod
    def at_target(cls, gradient: Vector) -> "Adjoint":
        """M depends on θ_T only."""
        return cls(gradient.clone(), torch.zeros_like(gradient), torch.zeros_like(gradient))

    def norm(self) -> float:
        """‖λ_θ‖."""
        return float(torch.linalg.vector_norm(self.theta.double()))


def reverse_update(trainer: Trainer, made: Update, adjoint: Adjoint) -> tuple[Float[Tensor, " example"], Adjoint]:
    """∂M/∂w for the examples of one update, and the adjoint before it.

    Cost: one double backward, about three times a training step.
    """
    spec = trainer.optimizer
    c = coefficients(spec, made.before.step)
    entered, mu_m, mu_v = _adjoint_of_entering(spec, made, adjoint)
    scores, hessian_u = _double_backward(trainer, made, _adjoint_of_gradient(made, entered))
    theta = (1 - c.learning_rate * c.decay) * adjoint.theta + hessian_u
    if c.coupled_decay:
        theta = theta + c.coupled_decay * entered
    beta2 = 1.0 if spec.kind == "sgd" else spec.beta2
    return scores, Adjoint(theta, c.beta * mu_m, beta2 * mu_v)


def _adjoint_of_entering(spec: Optimizer, made: Update, adjoint: Adjoint) -> tuple[Vector, Vector, Vector]:
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


def _adjoint_of_gradient(made: Update, entered: Vector) -> Vector:
    """u: back through the clip."""
    if made.clip == 1:
        return entered
    g = made.gradient
    return made.clip * (entered - g * (g @ entered) / (g @ g))


def _double_backward(trainer: Trainer, made: Update, u: Vector) -> tuple[Float[Tensor, " example"], Vector]:
    """(⟨∇ℓ_i, u⟩ / B for every i, H u) at the state before the update, one micro-batch at a time."""
    flat = trainer.flat
    flat.load(made.before.theta)
    directions = list(flat.named(u).values())
    scores, products = [], torch.zeros_like(u)
    for part in trainer.micro_batches(made.examples):
        given = trainer.weights_at(made.before.step, part)
        base = torch.ones(len(part), dtype=u.dtype, device=u.device) if given is None else given
        weights = base.clone().requires_grad_()
        losses = example_losses(flat.model, trainer.tokens(part))
        loss = (weights * losses).mean() / trainer.training.micro_batches
        gradients = torch.autograd.grad(loss, flat.parameters, create_graph=True)
        inner = torch.stack([(g * d).sum() for g, d in zip(gradients, directions, strict=True)]).sum()
        # A parameter that enters linearly everywhere (or not at all) has no second derivative.
        by_weight, *by_parameter = torch.autograd.grad(inner, [weights, *flat.parameters], allow_unused=True)
        scores.append(by_weight)
        products += flatten(tuple(by_parameter), flat.parameters)
    return torch.cat(scores), products
