"""The ways to score training examples, from exact to cheap: what each means, costs, and is good for.

All scores estimate ∂M(θ_T)/∂w_{i,s} in the unit of M (`scores.py`); they differ in what they leave out.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Method:
    """One way to score examples.

    Attributes:
        meaning: what the number is.
        cost: in training steps (one forward and backward of a batch) per update, or as said.
        when: when to take it.
    """

    meaning: str
    cost: str
    when: str


METHODS: dict[str, Method] = {
    "adjoint": Method(
        "the exact derivative through all later updates of training",
        "3 to 4 per update, 2 more for each further target; replays training",
        "always, if time allows; it predicts retraining well where training is smooth in its data",
    ),
    "adjoint_mean": Method(
        "the exact derivative, averaged over trainings that each lack another random share of the examples",
        "5 per update and trajectory (6 by default), 2 more for each further target",
        "removals of several percent, where one derivative is far off the size of what happens; error bars on examples",
    ),
    "gradient_dot": Method(
        "first order at checkpoints, as if training were SGD: learning rate × ⟨∇M, ∇ℓ⟩ (TracInCP)",
        "1.1 per update, up to about 8 targets together; no replay",
        "SGD runs that the adjoint is too expensive for; elsewhere a baseline",
    ),
    "gradient_dot_adam": Method(
        "first order at checkpoints with Adam's own scaling of gradients",
        "1.1 per update, up to about 8 targets together; no replay",
        "Adam runs that the adjoint is too expensive for, and steps before the adjoint's horizon",
    ),
    "gauss_newton": Method(
        "influence function of the trained weights: ⟨∇M, (G + λ)⁻¹ ∇ℓ⟩, G the Gauss–Newton matrix of a sample",
        "2 to 3 of the sample per iteration and target, then 1.1 per batch of distinct examples",
        "runs trained close to convergence, whatever the optimizer; needs the last state only",
    ),
    "ekfac": Method(
        "the same with G approximated layer by layer in its Kronecker eigenbasis (EK-FAC); linear layers only",
        "about 20 forwards and backwards of the sample once, then 1.1 per batch for all targets; an environment of its own",
        "models where conjugate gradients do not converge in time; comparison with published numbers",
    ),
    "sketch": Method(
        "first order as above, from stored random projections of gradients, with a stated standard error",
        "5 to 8 per update once (small models, short contexts), then one small matrix product for any later direction",
        "questions that are not known yet when the run is in memory",
    ),
}
