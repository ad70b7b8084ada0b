"""Optimizer updates as pure functions of a state, in the one form that the ledger and the adjoint rest on:

    ĝ = c g + λ_c θ    c = min(1, C / ‖g‖)                                    (clip; coupled decay)
    m' = β m + κ ĝ     v' = β₂ v + (1 − β₂) ĝ²
    θ' = θ − η_t [ D ⊙ m'/r₁ + λ_d θ ]

AdamW:  β = β₁, κ = 1 − β₁, r₁ = 1 − β₁^(t+1), r₂ = 1 − β₂^(t+1), D = 1 / (√(v'/r₂ + ε_root) + ε), λ_d = λ, λ_c = 0
Adam:   the same with λ_d = 0, λ_c = λ
SGD:    β = momentum, κ = 1, r₁ = 1, D = 1, v unused, λ_d = λ, λ_c = 0

Muon is not of this form (`muon.py`). Sources: Loshchilov & Hutter 2019 (decoupled decay), Kingma & Ba 2015; ε inside
the root keeps training metasmooth (Engstrom et al. 2025), at no cost in loss at 1e-8.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mech_pipeline.spec.training import Optimizer
from mech_pipeline.training.update.schedule import learning_rate

Vector = Float[Tensor, " parameter"]


@dataclass(frozen=True)
class State:
    """θ_t with its moments after `step` updates."""

    step: int
    theta: Vector
    m: Vector
    v: Vector

    @classmethod
    def initial(cls, theta: Vector) -> "State":
        """Step 0: no momentum yet."""
        return cls(0, theta.clone(), torch.zeros_like(theta), torch.zeros_like(theta))


@dataclass(frozen=True)
class Coefficients:
    """The numbers of update t: β, κ, r₁, r₂, η, decoupled and coupled decay."""

    beta: float
    kappa: float
    r1: float
    r2: float
    learning_rate: float
    decay: float
    coupled_decay: float


def coefficients(spec: Optimizer, step: int) -> Coefficients:
    """The numbers of update `step`."""
    rate = learning_rate(spec, step)
    if spec.kind == "sgd":
        return Coefficients(spec.momentum, 1.0, 1.0, 1.0, rate, spec.weight_decay, 0.0)
    coupled = spec.kind == "adam"
    return Coefficients(
        beta=spec.beta1,
        kappa=1 - spec.beta1,
        r1=1 - spec.beta1 ** (step + 1),
        r2=1 - spec.beta2 ** (step + 1),
        learning_rate=rate,
        decay=0.0 if coupled else spec.weight_decay,
        coupled_decay=spec.weight_decay if coupled else 0.0,
    )


def clip_factor(spec: Optimizer, norm: float) -> float:
    """c = min(1, clip_norm / ‖g‖)."""
    if spec.clip_norm is None:
        return 1.0
    return min(1.0, spec.clip_norm / norm) if norm > 0 else 1.0


def scaling(spec: Optimizer, v_next: Vector, step: int) -> Vector:
    """D of update `step`, from the second moment after it."""
    if spec.kind == "sgd":
        return torch.ones_like(v_next)
    root = (v_next / coefficients(spec, step).r2).add_(spec.eps_root).sqrt_()
    return 1 / (root.add_(spec.eps) if spec.eps else root)


def entering(spec: Optimizer, state: State, gradient: Vector, clip: float) -> Vector:
    """ĝ: what enters the moments."""
    decay = coefficients(spec, state.step).coupled_decay
    return clip * gradient + decay * state.theta if decay else gradient * clip


def update(spec: Optimizer, state: State, gradient: Vector, clip: float) -> State:
    """One update from the gradient of the batch loss, before clipping by the factor `clip`."""
    # In place where a tensor is new: at sizes beyond the cache an update is bound by memory.
    c = coefficients(spec, state.step)
    moved = entering(spec, state, gradient, clip)
    m = (c.beta * state.m).add_(c.kappa * moved)
    v = state.v if spec.kind == "sgd" else (spec.beta2 * state.v).add_(moved.square_().mul_(1 - spec.beta2))
    direction = scaling(spec, v, state.step).mul_(m).div_(c.r1)
    if c.decay:
        direction.add_(c.decay * state.theta)
    return State(state.step + 1, state.theta - direction.mul_(c.learning_rate), m, v)
