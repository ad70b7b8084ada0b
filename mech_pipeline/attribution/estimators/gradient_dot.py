"""First-order scores from checkpoints alone (TracInCP): how far an update moves θ, times how M responds right there.

For update s between kept states c ≤ s < c' of a run,

    score(i, s) = −(c_s / B) r_s ⟨∇M(θ_c), P ∇ℓ_i(θ_c)⟩

    gradient_dot:       P = 1                                              (the form for SGD)
    gradient_dot_adam:  P = D_{c'}, the optimizer's scaling from the second moment at c'    (for SGD the same as above)

c_s is the clip factor. r_s is the learning rate that a gradient gets in all, momentum included, before the target T:

    r_t = κ q_t,     q_T = 0,     q_t = β q_{t+1} + η_t / r₁(t)            (r₁ Adam's bias correction; 1 for SGD)

which is η in Adam's steady state, η / (1 − β) for SGD with momentum, and η for a last update.

What it leaves out: everything that happens after the update acted (no curvature), how an example moves the second
moment, weight decay, and how θ moved between checkpoints. Taken at θ_c, ∇M asks what helped M *then*; gradients that are
∇M(θ_T) at every checkpoint ask for M at the target without curvature. Either correlates weakly with retraining
(0.2 to 0.5 where the exact influence reaches 0.8 to 0.9, small models): a ranking to fall back on, no prediction.
Magnitudes are in the unit of M only where P is the optimizer's own scaling; `gradient_dot` under Adam is a ranking.

Cost: 1.1 training steps per update for up to about 8 targets together; no replay, memory of two states.
Source: Pruthi et al. 2020, eq. 4 (TracInCP); Xia et al. 2024 (LESS) for Adam's scaling.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from mech_pipeline.attribution.estimators.products import ExampleProducts
from mech_pipeline.attribution.estimators.scores import TargetGradients, UpdateScores
from mech_pipeline.errors import MechError
from mech_pipeline.progress import Report, ignore_progress
from mech_pipeline.spec.training import Optimizer
from mech_pipeline.training.loop import Trainer
from mech_pipeline.training.update.optimizer import State, coefficients, scaling

Method = Literal["gradient_dot", "gradient_dot_adam"]


def gradient_dot_scores(
    trainer: Trainer,
    checkpoints: Sequence[int],
    state: Callable[[int], State],
    gradients: TargetGradients,
    method: Method = "gradient_dot_adam",
    clip_factors: Mapping[int, float] | None = None,
    report: Report = ignore_progress,
) -> Iterator[UpdateScores]:
    """Scores of every update from the first to the last checkpoint, in order.

    Args:
        checkpoints: steps of kept states, rising; the last is the target T. A later first one is a horizon.
        state: reads a checkpoint.
        gradients: ∇M at a state; may leave any parameters in the model.
        clip_factors: c_s of each update; none: 1, since only a replay or the training record knows them.
        report: called with the number of updates done.

    Raises:
        MechError: fewer than two checkpoints, a clip factor is missing, or updates are not linear in gradients (Muon).
    """
    check_first_order(trainer.optimizer, checkpoints)
    products = ExampleProducts(trainer.flat)
    first, until = checkpoints[0], checkpoints[-1]
    rates = lasting_rates(trainer.optimizer, first, until)
    begin = state(first)
    for _, end_step in pairwise(checkpoints):
        end = state(end_step)
        directions = preconditioned(trainer.optimizer, gradients(begin), end, method)
        for step in range(begin.step, end.step):
            examples = trainer.batch(step)
            trainer.flat.load(begin.theta)  # whoever takes the scores may use the model in between
            factor = -rates[step - first] * clip_of(clip_factors, step) / len(examples)
            yield UpdateScores(step, examples, factor * products(trainer.tokens(examples), directions))
            report(step - first + 1)
        begin = end


def lasting_rates(spec: Optimizer, first: int, until: int) -> list[float]:
    """r_s of the updates `first` … `until` − 1: the learning rate that a gradient gets before step `until`.

    >>> from mech_pipeline.spec.training import Optimizer
    >>> sgd = Optimizer(kind="sgd", learning_rate=1.0, warmup_steps=0, momentum=0.5)
    >>> lasting_rates(sgd, 0, 4)
    [1.875, 1.75, 1.5, 1.0]
    """
    rates, lasting = [], 0.0
    for step in reversed(range(first, until)):
        c = coefficients(spec, step)
        lasting = c.beta * lasting + c.learning_rate / c.r1
        rates.append(c.kappa * lasting)
    return rates[::-1]


def preconditioned(
    spec: Optimizer, gradients: Float[Tensor, "target parameter"], end: State, method: Method
) -> Float[Tensor, "target parameter"]:
    """P ∇M for the updates before state `end`."""
    return gradients if method == "gradient_dot" else gradients * scaling(spec, end.v, end.step - 1)


def clip_of(clip_factors: Mapping[int, float] | None, step: int) -> float:
    """c_s, or 1 if none are known."""
    if clip_factors is None:
        return 1.0
    if step not in clip_factors:
        raise MechError(f"no clip factor of update {step} was given", "give those of all updates, or none")
    return clip_factors[step]


def check_first_order(spec: Optimizer, checkpoints: Sequence[int]) -> None:
    """Whether first-order scores exist: linear updates, and checkpoints in order.

    Raises:
        MechError: they do not.
    """
    if not spec.linear:
        raise MechError(
            f"{spec.kind} orthogonalises its updates: no single example moves θ by a part of its own",
            "use method gauss_newton, which asks for the trained weights only",
        )
    if len(checkpoints) < 2 or list(checkpoints) != sorted(set(checkpoints)):
        raise MechError(
            f"first-order scores need two or more checkpoints in rising order, got {list(checkpoints)}",
            "name the steps of kept states, the target step last",
        )
