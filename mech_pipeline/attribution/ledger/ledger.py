"""The ledger: an exact account of what each example's gradient did to a mechanism M. It explains; it does not predict.

Over the updates of one window (from one checkpoint to the next), with the optimizer form of `training/update/optimizer.py`:

    M(θ_{t+1}) − M(θ_t) = ⟨ḡ_t, θ_{t+1} − θ_t⟩,     ḡ_t = ∫₀¹ ∇M(θ_t + u(θ_{t+1} − θ_t)) du     (Simpson, see quadrature.py)
    a'_t = β a'_{t+1} + (η_t / r₁) D_t ⊙ ḡ_t        (backwards; a' = 0 at the window's end)
    example i at update s:      −(c_s κ / B) ⟨∇ℓ_i(θ_s), a'_s⟩
    weight decay at update t:   −η_t λ_d ⟨ḡ_t, θ_t⟩ − κ λ_c ⟨θ_t, a'_t⟩       (decoupled, coupled)
    momentum carried in:        −β ⟨m_first, a'_first⟩

The three sum to the window's change of M. What a gradient does after the window, through momentum, is its
`value_later`: the same formula with a' continued from the windows after. Summed over a run, value_later equals the
momentum carried in, so value + value_later is the whole effect of an example.

D_t is taken as it was: the ledger does not ask how an example changed the second moment, so its terms are exact parts
of what happened, not derivatives. See docs/method.md §1; the path integral is that of ExPLAIND (2026) and integrated gradients.
Cost per update: one training step, about one forward per direction (two of them), two gradients of M and some values.
"""

from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from mech_pipeline.attribution.ledger.bisection import GradientAt, ValueAt
from mech_pipeline.attribution.ledger.quadrature import Place, path_averages
from mech_pipeline.attribution.per_example.capture import Capture, Factors
from mech_pipeline.attribution.per_example.components import Components
from mech_pipeline.spec.training import Optimizer
from mech_pipeline.training.loop import Trainer, Update
from mech_pipeline.training.model import example_losses
from mech_pipeline.training.update.optimizer import Coefficients, State, Vector, coefficients, scaling

F = TypeVar("F")
"""What is known of the per-example gradients of an update."""
Contract = Callable[[F, Float[Tensor, "direction parameter"]], Float[Tensor, "direction example component"]]
"""(factors, directions V) → ⟨∇ℓ_i/B, V⟩ split by component, such as `Contraction`."""
ByToken = Callable[[Update, F, Vector], Float[Tensor, "meaning example token"]]
"""(update, its factors, direction V) → ⟨∇ℓ_i/B, V⟩ split by token, in one or several meanings of "token"."""


@dataclass(frozen=True)
class Account:
    """The ledger of one window and one mechanism.

    Attributes:
        updates: the window's updates.
        examples: contribution inside the window per update, example and component.
        examples_later: contribution of the same gradients after the window.
        weight_decay: per update and component.
        weight_decay_later: of coupled decay, what it does through momentum after the window; else 0.
        momentum: carried in, per component.
        carry: a' at the window's start, over this and all later windows: what the window before needs.
        begin: ∇M and M at the window's start, for the window before.
        change: of M over the window, true, in double precision; none: `value_at` was not given.
        gross: Σ_t |⟨ḡ_t, θ_{t+1} − θ_t⟩|.
        tokens: the whole effect (inside the window and after it) by meaning, example and token, if it was asked for.
        update_error: largest ‖rebuilt − applied‖ / ‖applied‖ over updates, beyond the rounding of stored weights.
        example_error: largest |Σ_i − ⟨g, a'⟩ of the batch| / (‖g‖ ‖a'‖).
    """

    updates: Sequence[Update]
    examples: Float[Tensor, "update example component"]
    examples_later: Float[Tensor, "update example component"]
    weight_decay: Float[Tensor, "update component"]
    weight_decay_later: Float[Tensor, "update component"]
    momentum: Float[Tensor, " component"]
    carry: Vector
    begin: Place
    change: float | None
    gross: float
    update_error: float
    example_error: float
    tokens: Float[Tensor, "update meaning example token"] | None = None

    def explained(self) -> float:
        """Sum of everything that acted inside the window: equals the change of M."""
        return float(self.examples.sum() + self.weight_decay.sum() + self.momentum.sum())


def replay_with_factors(
    trainer: Trainer, state: State, until: int, modules: Collection[str] | None = None
) -> tuple[list[Update], list[Factors]]:
    """Replays a window and keeps what the contraction needs; memory: the activations of one window.

    Args:
        modules: those that the contraction needs; none: all.
    """
    updates, factors = [], []
    capture = Capture(trainer.flat.model, modules)
    with capture if trainer.hooked else nullcontext():
        for made in trainer.updates(state, until):
            updates.append(made)
            factors.append(capture.factors() if trainer.hooked else batch_factors(trainer, made, capture))
    return updates, factors


def batch_factors(trainer: Trainer, made: Update, capture: Capture | None = None, *, weighted: bool = True) -> Factors:
    """Factors of an update's batch from a forward and backward of its own: of training to rounding.

    Args:
        weighted: each example's loss times its weight, as in training; else the plain loss.
    """
    capture = Capture(trainer.flat.model) if capture is None else capture
    trainer.flat.load(made.before.theta)
    with capture:
        for part in trainer.micro_batches(made.examples):
            losses = example_losses(trainer.flat.model, trainer.tokens(part))
            weights = trainer.weights_at(made.before.step, part) if weighted else None
            losses = losses if weights is None else losses * weights
            trainer.flat.gradient(losses.mean() / trainer.training.micro_batches)
    return capture.factors()


def window_account(
    spec: Optimizer,
    components: Components,
    contraction: Contract[F],
    gradient_at: GradientAt,
    updates: Sequence[Update],
    factors: Sequence[F],
    carry: Vector | None = None,
    value_at: ValueAt | None = None,
    by_token: ByToken[F] | None = None,
    end: Place | None = None,
) -> Account:
    """The account of one window of one mechanism.

    Args:
        value_at: M itself, if the quadrature is to be refined where it misses the true change.
        by_token: splits ⟨∇ℓ_i/B, V⟩ of an update's examples by token.
        carry: the `Account.carry` of the window right after this one; none if nothing comes after.
        end: the `Account.begin` of that window, for the same M; none: it is computed again.
    """
    along = path_averages(gradient_at, updates, value_at, end)
    within = torch.zeros_like(updates[0].before.theta)
    later = within.clone() if carry is None else carry.clone()
    examples, examples_later, decay, decay_later, tokens = [], [], [], [], []
    example_error = update_error = 0.0
    for made, factor, path_gradient in reversed(list(zip(updates, factors, along.gradients, strict=True))):
        c = coefficients(spec, made.before.step)
        within = (
            c.beta * within + (c.learning_rate / c.r1) * scaling(spec, made.after.v, made.before.step) * path_gradient
        )
        later = c.beta * later
        parts = -c.kappa * made.clip * contraction(factor, torch.stack([within, later]))
        if by_token is not None:
            tokens.append(-c.kappa * made.clip * by_token(made, factor, within + later))
        examples.append(parts[0])
        examples_later.append(parts[1])
        inside, after = _decay(components, c, made.before.theta, path_gradient, within, later)
        decay.append(inside)
        decay_later.append(after)
        example_error = max(example_error, _example_error(made, parts[0], within, c.kappa * made.clip))
        update_error = max(update_error, _update_error(spec, made))
    first = coefficients(spec, updates[0].before.step)
    return Account(
        updates=updates,
        examples=torch.stack(examples[::-1]),
        examples_later=torch.stack(examples_later[::-1]),
        weight_decay=torch.stack(decay[::-1]),
        weight_decay_later=torch.stack(decay_later[::-1]),
        momentum=-first.beta * components.sums(updates[0].before.m * within),
        carry=within + later,
        begin=along.begin,
        change=along.change,
        gross=sum(map(abs, reversed(along.explained))),
        update_error=update_error,
        example_error=example_error,
        tokens=torch.stack(tokens[::-1]) if tokens else None,
    )


def movement(components: Components, before: Vector, after: Vector) -> Vector:
    """The direction in which each component of the weights moved between two states: unit vectors u_c = Δ_c / ‖Δ_c‖.

    Taken as ḡ of every update, it makes the account of the weights themselves: contributions are weight distances along
    what the component did, and sum to Σ_c ‖Δ_c‖. A component that did not move gets 0.
    """
    moved = after.double() - before.double()
    norms = components.norms(moved)[components.index]
    return torch.where(norms > 0, moved / norms.clamp_min(torch.finfo(torch.float64).tiny), 0.0).to(after)


def _example_error(made: Update, parts: Tensor, adjoint: Vector, factor: float) -> float:
    """|Σ_i parts − batch| relative to the product of the norms."""
    batch = -factor * float(made.gradient.double() @ adjoint.double())
    scale = factor * float(torch.linalg.vector_norm(made.gradient) * torch.linalg.vector_norm(adjoint))
    return abs(float(parts.sum()) - batch) / scale if scale > 0 else 0.0


def _decay(
    components: Components, c: Coefficients, theta: Vector, path_gradient: Vector, within: Vector, later: Vector
) -> tuple[Float[Tensor, " component"], Float[Tensor, " component"]]:
    """What weight decay did inside the window and, through momentum, after it."""
    coupled = -c.kappa * c.coupled_decay
    inside = -c.learning_rate * c.decay * components.sums(path_gradient * theta)
    if c.coupled_decay or not c.decay:
        inside = inside + coupled * components.sums(within * theta)
    # Without coupled decay as well: a zero has a sign, and versions of stored rows go by their bytes.
    return inside, coupled * components.sums(later * theta)


def _update_error(spec: Optimizer, made: Update) -> float:
    """‖applied − rebuilt from clip, momentum and decay‖ / ‖applied‖, one rounding of each stored weight subtracted."""
    # In place where a tensor is new, as in the update itself.
    c = coefficients(spec, made.before.step)
    theta, after = made.before.theta.double(), made.after.theta.double()
    moved = made.gradient.double() * made.clip
    if c.coupled_decay:
        moved.add_(c.coupled_decay * theta)
    momentum = (made.before.m.double() * c.beta).add_(moved.mul_(c.kappa))
    rebuilt = scaling(spec, made.after.v.double(), made.before.step).mul_(momentum).div_(c.r1)
    if c.decay:
        rebuilt.add_(c.decay * theta)
    applied = after - theta
    norm = float(torch.linalg.vector_norm(applied))
    rounding = after.abs().mul_(torch.finfo(made.after.theta.dtype).eps)
    excess = applied.sub_(rebuilt.mul_(-c.learning_rate)).abs_().sub_(rounding).clamp_min_(0)
    return float(torch.linalg.vector_norm(excess)) / norm if norm > 0 else 0.0
