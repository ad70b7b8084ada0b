"""What each example of a window did to the weights: its part of the applied updates, in the optimizer's own metric, sketched.

Over the updates s of a window (from one checkpoint to the next), with the optimizer form of `training/update/optimizer.py`:

    θ_end − θ_begin = Σ_i δ_i − (weight decay) − β A_first ⊙ m_first
    δ_i = −Σ_s (c_s κ w_i / B) A_s ⊙ ∇ℓ_i(θ_s),        A_s = β A_{s+1} + (η_s / r₁) D_s       (backwards; 0 at the window's end)

D_s = 1 / (√(v̂_s + ε_root) + ε) is Adam's diagonal as it was, momentum is followed to the window's end. It is the ledger of
`attribution/ledger/ledger.py` before it is contracted with a mechanism's gradient: the ledger's value of an example is ⟨∇M, δ_i⟩,
and no mechanism is named here. What moved the weights without an example of this window (momentum carried in, decay) has no row.

A row is S δ_i, a sketch (`attribution/per_example/factor_sketches.py`); beside it stands the sketch of the raw gradient
Σ_s ∇ℓ_i(θ_s), which no metric has touched, by other signs: its error is its own.
Cost per update: one training step, its weight gradients once more, and two passes over them. Memory: activations of the window.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mech_pipeline.attribution.per_example.capture import Factors
from mech_pipeline.attribution.per_example.factor_sketches import FactorSketcher
from mech_pipeline.attribution.per_example.summed_gradient import SummedGradient
from mech_pipeline.spec.training import Optimizer
from mech_pipeline.training.loop import Update
from mech_pipeline.training.update.optimizer import Vector, coefficients, scaling

RAW = 1


@dataclass(frozen=True)
class WindowRows:
    """The examples of a window and their rows.

    Attributes:
        examples: pool indices, each once, rising.
        applied: S δ_i, weight units.
        raw: S' Σ_s w_i ∇ℓ_i(θ_s) / B, the stream `RAW` of the sketch.
    """

    examples: Int[Tensor, " example"]
    applied: Float[Tensor, "example sketch"]
    raw: Float[Tensor, "example sketch"]


def reach(optimizer: Optimizer, updates: Sequence[Update]) -> list[Vector]:
    """c_s κ A_s of every update: how far a gradient of it moves each weight until the window's end."""
    found, along = [], torch.zeros_like(updates[0].before.theta)
    for made in reversed(updates):
        c = coefficients(optimizer, made.before.step)
        along = c.beta * along + (c.learning_rate / c.r1) * scaling(optimizer, made.after.v, made.before.step)
        found.append(c.kappa * made.clip * along)
    return found[::-1]


def batches_of(
    updates: Sequence[Update],
) -> tuple[Int[Tensor, " example"], list[Int[Tensor, " row"]]]:
    """The distinct examples of a window, and for each update the places of its batch among them."""
    examples, place = torch.unique(torch.cat([made.examples for made in updates]), return_inverse=True)
    return examples, list(place.split([len(made.examples) for made in updates]))


def window_rows(
    sketcher: FactorSketcher, optimizer: Optimizer, updates: Sequence[Update], factors: Sequence[Factors]
) -> WindowRows:
    """The rows of a window.

    Args:
        updates, factors: of the window, from `replay_with_factors`.
    """
    examples, batches = batches_of(updates)
    like = updates[0].before.theta
    applied, raw = (like.new_zeros(len(examples), sketcher.width) for _ in range(2))
    plain = sketcher.signed(torch.ones_like(like), RAW)
    for rows, factor, moves in zip(batches, factors, reach(optimizer, updates), strict=True):
        found = sketcher(factor, [sketcher.signed(-moves), plain])
        place = rows.to(like.device)
        applied.index_add_(0, place, found[0])
        raw.index_add_(0, place, found[1])
    return WindowRows(examples, applied, raw)


def group_displacement(
    summed: SummedGradient,
    updates: Sequence[Update],
    factors: Sequence[Factors],
    moves: Sequence[Vector],
    batches: Sequence[Int[Tensor, " row"]],
    members: Int[Tensor, " member"],
) -> Vector:
    """Σ δ_i over some examples of a window, whole and not sketched: where they together moved the weights.

    Args:
        moves: see `reach`.
        batches: see `batches_of`.
        members: places among the window's examples.
    """
    moved = torch.zeros_like(updates[0].before.theta)
    for factor, step, rows in zip(factors, moves, batches, strict=True):
        inside = torch.isin(rows, members).nonzero()[:, 0]
        if len(inside):
            moved -= step * summed(factor, inside.to(moved.device))
    return moved
