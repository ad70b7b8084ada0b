"""What every estimator returns: a score of every example in every update, in the unit of the exact influence.

    score(i, s) ≈ ∂M(θ_T) / ∂w_{i,s},        batch loss of update s = (1/B) Σ_i w_{i,s} ℓ_i

so minus the sum over (i, s) ∈ S predicts what leaving S out changes in M, whichever method gave the scores.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mech_pipeline.training.update.optimizer import State

TargetGradients = Callable[[State], Float[Tensor, "target parameter"]]
"""∇M at a state, one row per mechanism (or any other direction)."""


@dataclass(frozen=True)
class UpdateScores:
    """Scores of one update.

    Attributes:
        step: the update s, from state s to state s + 1.
        examples: pool indices of its batch.
        scores: estimate of ∂M(θ_T)/∂w, one row per target, in the unit of that target.
    """

    step: int
    examples: Int[Tensor, " example"]
    scores: Float[Tensor, "target example"]


def example_totals(updates: Iterable[UpdateScores], pool: int) -> Float[Tensor, "target pool"]:
    """Sum over updates for each example of the pool, in float64; 0 for those that no update saw."""
    total: Tensor | None = None
    for update in updates:
        if total is None:
            total = torch.zeros(len(update.scores), pool, dtype=torch.float64)
        total.index_add_(1, update.examples.cpu(), update.scores.double().cpu())
    assert total is not None, "there is at least one update"
    return total
