"""What made a neuron: the tokens and contexts that moved its in- and out-weights over a window of training. Exact.

A neuron's part c (its row of the weight that reads, with its bias; its column of the weight that writes) moves by Δ_c. Along
u_c = Δ_c / ‖Δ_c‖, the movement is split as the ledger splits a mechanism, with u_c in the place of the mechanism's gradient:

    ‖Δ_c‖ = Σ_updates,examples,positions s_c(t, i, p) + weight decay + momentum carried in
    s_c(t, i, p) = −κ_t clip_t ⟨δ_c(i, p) ⊗ x(i, p), V_t⟩,   V_t = β V_{t+1} + (η/r₁) D_t ⊙ u_c

x(i, p): what enters the weight at position p of example i, δ: the gradient of the batch's loss at what leaves it, D: Adam's
scaling as it was, momentum followed to the end of the window (`ledger.py`). All neurons at once, by matrix products.
A position is named by the token that the model reads there; other tokens are in x through attention.
Positive: moved the part to where it went; negative: held it back. What is said is what happened, not what would happen
without a token.
Source: docs/method.md, §1; the account of the weights themselves (`ledger: {weights: true}`), here by token.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mech_pipeline.attribution.ledger.ledger import Account, movement, replay_with_factors, window_account
from mech_pipeline.attribution.per_example.capture import Factors
from mech_pipeline.attribution.per_example.components import Components
from mech_pipeline.attribution.per_example.contraction import Contraction
from mech_pipeline.progress import Report, ignore_progress
from mech_pipeline.training.loop import Trainer, Update
from mech_pipeline.training.update.optimizer import State, Vector, coefficients

PARTS = ("L*N*.*",)
CONTEXTS = 5


@dataclass(frozen=True)
class Contexts:
    """The positions with the largest scores of each part, largest first.

    Attributes:
        score: weight length.
        update, example, position: where: the update's step, the index of the example in the pool, the position in it.
    """

    score: Float[Tensor, "place part"]
    update: Int[Tensor, "place part"]
    example: Int[Tensor, "place part"]
    position: Int[Tensor, "place part"]


@dataclass(frozen=True)
class NeuronAccount:
    """What moved every part of every neuron over a window.

    Attributes:
        names: of the parts: L0N3.in, L0N3.out, in gated MLPs L0N3.gate.
        displacement: ‖Δ_c‖, length in weight space.
        tokens: sum over positions by the token read there.
        weight_decay, momentum: what moved it without an example of this window.
        contexts: single positions.
    """

    names: tuple[str, ...]
    displacement: Float[Tensor, " part"]
    tokens: Float[Tensor, "vocabulary part"]
    weight_decay: Float[Tensor, " part"]
    momentum: Float[Tensor, " part"]
    contexts: Contexts

    def imbalance(self) -> Float[Tensor, " part"]:
        """(sum of everything − displacement) / displacement; 0 for a part that did not move."""
        explained = self.tokens.sum(0) + self.weight_decay + self.momentum
        return (explained - self.displacement) / self.displacement.clamp_min(1e-30)


def neuron_account(
    trainer: Trainer,
    components: Components,
    state_at: Callable[[int], State],
    bounds: Sequence[int],
    *,
    vocabulary: int,
    contexts: int = CONTEXTS,
    report: Report = ignore_progress,
) -> NeuronAccount:
    """The account of a window, replayed piece by piece from its end.

    Args:
        components: by neuron.
        state_at: the state at a step of `bounds`.
        bounds: the window's first and last step, and steps between where the replay may start; a piece's activations are
            kept at once.
        report: called with the number of updates done.

    Raises:
        MechError: the model has no MLP.
    """
    some = Contraction(trainer.flat, components, PARTS)
    every = Contraction(trainer.flat, components)
    place = torch.tensor([components.names.index(name) for name in some.names])
    begin, end = state_at(bounds[0]).theta, state_at(bounds[-1]).theta
    along = movement(components, begin, end)
    book = _Book(trainer, some, vocabulary, contexts)
    decay, done = torch.zeros(len(place), dtype=torch.float64), 0
    account: Account | None = None
    for first, last in reversed(list(pairwise(bounds))):
        updates, factors = replay_with_factors(trainer, state_at(first), last)
        carry = None if account is None else account.carry
        account = window_account(
            trainer.optimizer, components, every, lambda theta: along, updates, factors, carry, by_token=book.add
        )
        decay += (account.weight_decay + account.weight_decay_later).sum(0).cpu()[place]
        done += last - first
        report(done)
    assert account is not None, "a window has two bounds"
    before = account.updates[0].before
    beta = coefficients(trainer.optimizer, before.step).beta
    return NeuronAccount(
        some.names,
        components.norms(end.double() - begin.double()).cpu()[place],
        book.tokens,
        decay,
        -beta * components.sums(before.m * account.carry).cpu()[place],
        book.contexts(),
    )


class _Book:
    """Adds the scores of an update to those of tokens, and keeps the largest positions."""

    def __init__(self, trainer: Trainer, contraction: Contraction, vocabulary: int, contexts: int) -> None:
        self._trainer, self._contraction, self._count = trainer, contraction, contexts
        parts = len(contraction.names)
        self.tokens = torch.zeros(vocabulary, parts, dtype=torch.float64)
        self._score = torch.full((contexts, parts), -torch.inf, dtype=torch.float64)
        self._where = torch.full((3, contexts, parts), -1)

    def add(self, made: Update, factors: Factors, direction: Vector) -> Float[Tensor, "1 example token"]:
        """As `ledger.ByToken`: what it returns is the sum over parts; the split by part goes into the book."""
        split = self._contraction.per_token(factors, direction[None], components=True)[0]
        scale = -coefficients(self._trainer.optimizer, made.before.step).kappa * made.clip
        scores = (split * scale).flatten(0, 1)  # [example · position, part]
        examples, length = split.shape[:2]
        tokens = self._trainer.tokens(made.examples)[:, :length]
        self.tokens.index_add_(0, tokens.flatten().cpu(), scores.cpu())
        where = torch.stack(
            [
                torch.full((examples, length), made.before.step),
                made.examples.cpu()[:, None].expand(examples, length),
                torch.arange(length).expand(examples, length),
            ]
        ).flatten(1)
        best, row = scores.topk(min(self._count, len(scores)), dim=0)
        score = torch.cat([self._score, best.cpu()])
        places = torch.cat([self._where, where[:, row.cpu()]], dim=1)
        self._score, chosen = score.topk(self._count, dim=0)
        self._where = places.gather(1, chosen.expand(3, *chosen.shape))
        return split.sum(-1)[None]

    def contexts(self) -> Contexts:
        """The largest positions so far."""
        return Contexts(self._score, *self._where)


def effective_tokens(scores: Float[Tensor, "token part"]) -> Float[Tensor, " part"]:
    """exp H of the positive scores' shares: how many tokens made a part, as if they had equal shares. At least 1.

    1: one token (as monosemantic as can be seen in what made it); k equal tokens: k; no positive score: NaN.
    It says what moved the weights in this window. A neuron that one token made may still fire on others.
    Source: Hill 1973 (diversity of order 1, the exponential of Shannon's entropy).

    >>> effective_tokens(torch.tensor([[1.0, 1.0], [0.0, 1.0], [-5.0, 0.0]]))
    tensor([1., 2.])
    """
    positive = scores.clamp_min(0)
    share = positive / positive.sum(0)
    return torch.exp(-torch.xlogy(share, share).sum(0))
