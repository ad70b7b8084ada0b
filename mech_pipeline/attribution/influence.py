"""Influence: the derivative of a mechanism at step T by the weight of every example at every earlier update.

    I(i, s) = ∂M(θ_T) / ∂w_{i,s}        predicted effect of removing a set S: −Σ_{(i,s) ∈ S} I(i, s)

A sweep from T back to 0 that replays training window by window: memory is the states of one window. Exact up to
rounding; a *prediction* only for small changes, and only where training is metasmooth (see `reliability`): a
concentrated removal leaves the linear range long before the ranking is useless.

Cost: about four training steps per update. Source: Engstrom et al. 2025; Ilyas & Engstrom 2025 (MAGIC); METHOD §2.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mech_pipeline.attribution.adjoint import Adjoint, reverse_update
from mech_pipeline.progress import Report, ignore_progress
from mech_pipeline.training.loop import Trainer, Update
from mech_pipeline.training.optimizer import Vector

Window = Callable[[], list[Update]]
"""Replays one window and returns its updates, first to last."""


@dataclass(frozen=True)
class UpdateInfluence:
    """Scores of one update.

    Attributes:
        examples: indices into the pool.
        scores: ∂M(θ_T)/∂w of those examples, in the unit of M.
        adjoint_norm: ‖∂M(θ_T)/∂θ_s‖ before the update.
    """

    step: int
    examples: Int[Tensor, " example"]
    scores: Float[Tensor, " example"]
    adjoint_norm: float


def influence_sweep(
    trainer: Trainer, gradient: Vector, windows: Iterable[Window], report: Report = ignore_progress
) -> Iterator[UpdateInfluence]:
    """Yields the scores of every update, from the last before T back to the first.

    Args:
        gradient: ∇M(θ_T).
        windows: the windows before T, last first, without gaps.
        report: called with the number of updates done.
    """
    adjoint = Adjoint.at_target(gradient)
    done = 0
    for window in windows:
        for made in reversed(window()):
            scores, adjoint = reverse_update(trainer, made, adjoint)
            yield UpdateInfluence(made.before.step, made.examples, scores, adjoint.norm())
            done += 1
            report(done)
            if not torch.isfinite(adjoint.theta).all():
                return  # the horizon: earlier examples get no number rather than a wrong one
