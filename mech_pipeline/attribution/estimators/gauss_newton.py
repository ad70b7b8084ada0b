"""Influence functions of the trained weights: what the optimum would be with other example weights.

If training has converged to the minimum of its mean loss over all examples that it saw, (1/N) Σ_(i,s) w_{i,s} ℓ_i with
N = T B presentations, then by the implicit function theorem

    ∂M/∂w_{i,s} = −(1/N) ⟨∇ℓ_i(θ_T), x⟩,      (G + λ) x = ∇M(θ_T)

with G the Gauss–Newton matrix (`curvature.py`), from a sample of those presentations, in place of the Hessian. An example
that was seen k times has k equal scores; their sum is the derivative by its weight in the mean training loss. The
optimizer does not matter, nor when an example was seen.

**It assumes convergence.** For a mechanism in mid-formation training is far from an optimum: then scores are the answer
to another question, and their size means little. λ stands for what training did not move in finite time; it is given
relative to the mean of G's diagonal, because only that ratio decides how many directions count. G takes all examples of
the sample alike, also where the data brings weights of its own.

Cost: per iteration and target one product with G of the sample (a forward with tangents and a backward, 2 to 3
training steps of it); then 0.7 training steps per distinct example and a contraction. No replay, one state.
Source: Koh & Liang 2017; Gauss–Newton: Martens 2020, Grosse et al. 2023 (§2.1, damped).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mech_pipeline.attribution.estimators.conjugate_gradient import Solution, conjugate_gradient
from mech_pipeline.attribution.estimators.curvature import GaussNewton
from mech_pipeline.attribution.estimators.presentations import Presentations
from mech_pipeline.attribution.estimators.products import CHUNK, ExampleProducts
from mech_pipeline.attribution.estimators.scores import UpdateScores
from mech_pipeline.errors import MechError
from mech_pipeline.progress import Report, ignore_progress
from mech_pipeline.training.loop import Trainer
from mech_pipeline.training.update.optimizer import State


@dataclass(frozen=True)
class Settings:
    """How to solve for x.

    Attributes:
        sample: presentations that G is the mean over.
        damping: λ over the mean of G's diagonal.
        tolerance: relative residual to reach.
        iterations: products to stop after, per target.
        probes: products for the mean diagonal.
        chunk: examples at once.
    """

    sample: int = 256
    damping: float = 0.1
    tolerance: float = 1e-3
    iterations: int = 100
    probes: int = 8
    chunk: int = CHUNK


@dataclass(frozen=True)
class GaussNewtonScores:
    """Scores and how well x was found.

    Attributes:
        updates: of updates 0 … T − 1.
        damping: λ, absolute, nats per squared unit of parameter.
        residuals: ‖∇M − (G + λ) x‖ / ‖∇M‖ of every target; above the tolerance: not converged.
        iterations: products that every target took.
    """

    updates: list[UpdateScores]
    damping: float
    residuals: tuple[float, ...]
    iterations: tuple[int, ...]


def gauss_newton_scores(
    trainer: Trainer,
    state: State,
    gradients: Float[Tensor, "target parameter"],
    settings: Settings | None = None,
    report: Report = ignore_progress,
) -> GaussNewtonScores:
    """Scores of all updates before a state that training has (nearly) converged to.

    Args:
        state: at the target step.
        gradients: ∇M(θ_T), one row per target.
        report: called with the number of products with G done.

    Raises:
        MechError: no update has been made, or the loss does not depend on the parameters at all.
    """
    settings = settings or Settings()
    presented = Presentations.before(trainer, state.step)
    trainer.flat.load(state.theta)
    sample = trainer.tokens(presented.sample(trainer.seed, settings.sample))
    curvature = GaussNewton(trainer.flat, sample, settings.chunk)
    damping = settings.damping * curvature.mean_diagonal(trainer.seed, settings.probes)
    if not damping > 0:
        raise MechError(
            f"damping of the Gauss–Newton matrix is {damping:g}: its mean diagonal times {settings.damping:g}",
            "take a positive relative damping, and a state whose loss depends on its parameters",
        )
    solutions = solve(curvature, gradients, damping, settings, report)
    directions = torch.stack([solution.x for solution in solutions])
    products = ExampleProducts(trainer.flat, settings.chunk)(trainer.tokens(presented.distinct), directions)
    return GaussNewtonScores(
        updates=presented.spread(products / -len(presented.seen)),
        damping=damping,
        residuals=tuple(solution.residual for solution in solutions),
        iterations=tuple(solution.iterations for solution in solutions),
    )


def solve(
    curvature: GaussNewton,
    gradients: Float[Tensor, "target parameter"],
    damping: float,
    settings: Settings,
    report: Report = ignore_progress,
) -> Sequence[Solution]:
    """x of every target."""
    solutions: list[Solution] = []
    done = 0

    def one_more(_of_target: int) -> None:
        nonlocal done
        done += 1
        report(done)

    for gradient in gradients:
        solutions.append(
            conjugate_gradient(
                curvature.product,
                gradient,
                damping,
                tolerance=settings.tolerance,
                iterations=settings.iterations,
                report=one_more,
            )
        )
    return solutions
