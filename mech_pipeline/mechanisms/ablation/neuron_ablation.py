"""Does a neuron matter for the tokens that made it? Its activation is held at its mean; which positions' loss suffers?

    effect(S) = mean over positions whose input token is in S of (loss with the neuron at its mean − loss as it is), nats

S: the attributed tokens; beside it tokens of the same frequency that were not attributed, drawn at random. A neuron that
the tokens made and that works on them has effect(attributed) > effect(matched).
Intervals: bootstrap over sequences (percentiles), both effects of the same sequences, so that they are paired.
Source: Wang et al. 2022, §3.2 (mean ablation); Efron 1979 (bootstrap).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from mech_pipeline.errors import MechError
from mech_pipeline.mechanisms.ablation.columns import constant, replaced_columns
from mech_pipeline.mechanisms.anatomy import input_of, neuron_projection
from mech_pipeline.training.model import next_token_losses

NEAREST = 20
"""Tokens of the most similar frequency among which a match is drawn."""


@dataclass(frozen=True)
class Effect:
    """What holding a neuron at its mean costs, nats a position.

    Attributes:
        attributed, matched: mean over positions of the one and the other kind.
        low, high: 95 % interval of attributed − matched.
        positions: of attributed tokens.
    """

    attributed: float
    matched: float
    low: float
    high: float
    positions: int


def ablated_increase(
    model: nn.Module, tokens: Int[Tensor, "example token"], layer: int, neuron: int
) -> Float[Tensor, "example position"]:
    """Loss of the next token with the neuron at its mean over all positions, minus the loss as it is, nats.

    Raises:
        MechError: the model has no such layer or neuron, or no MLP there.
    """
    projection = neuron_projection(model, layer)
    with torch.no_grad():
        activations = input_of(model, projection, tokens[:, :-1])
        if not 0 <= neuron < activations.shape[-1]:
            raise MechError(
                f"layer {layer} has neurons 0 to {activations.shape[-1] - 1}, not {neuron}", "name one of them"
            )
        plain = next_token_losses(model, tokens)
        with replaced_columns(projection, slice(neuron, neuron + 1), constant(activations[..., neuron].mean())):
            return next_token_losses(model, tokens) - plain


def matched_tokens(
    counts: Int[Tensor, " vocabulary"], chosen: Sequence[int], generator: np.random.Generator
) -> list[int]:
    """For each chosen token another one, not chosen, drawn from the NEAREST with the most similar count; all different.

    Raises:
        MechError: there are not enough tokens that occur.
    """
    logs = np.log1p(counts.numpy().astype(float))
    taken = set(chosen)
    found: list[int] = []
    for token in chosen:
        free = np.array([other for other in np.flatnonzero(counts.numpy()) if other not in taken])
        if not len(free):
            raise MechError(f"no token is left to compare {len(chosen)} tokens with", "attribute to fewer tokens")
        near = free[np.argsort(np.abs(logs[free] - logs[token]), kind="stable")[:NEAREST]]
        found.append(int(generator.choice(near)))
        taken.add(found[-1])
    return found


def ablation_effect(
    increase: Float[Tensor, "example position"],
    tokens: Int[Tensor, "example token"],
    attributed: Sequence[int],
    matched: Sequence[int],
    generator: np.random.Generator,
    draws: int = 1000,
) -> Effect | None:
    """The effects and the interval of their difference; none if one of the kinds does not occur.

    Args:
        increase: `ablated_increase`.
        tokens: the same; the input token of a position is the one before its target.
    """
    read = tokens[:, : increase.shape[1]]
    sums, numbers = zip(*(_of_kind(increase, read, kind) for kind in (attributed, matched)), strict=True)
    if not all(number.sum() for number in numbers):
        return None
    chosen = generator.integers(len(tokens), size=(draws, len(tokens)))
    means = []
    for total, number in zip(sums, numbers, strict=True):
        with np.errstate(invalid="ignore", divide="ignore"):
            means.append(total[chosen].sum(1) / number[chosen].sum(1))
    low, high = np.nanpercentile(means[0] - means[1], [2.5, 97.5])
    both = [float(total.sum() / number.sum()) for total, number in zip(sums, numbers, strict=True)]
    return Effect(both[0], both[1], float(low), float(high), int(numbers[0].sum()))


def _of_kind(increase: Tensor, read: Tensor, kind: Sequence[int]) -> tuple[NDArray, NDArray]:
    """Sum of the increase and number of positions, of each sequence."""
    here = torch.isin(read, torch.tensor(list(kind)))
    return (increase * here).sum(1).double().numpy(), here.sum(1).numpy()
