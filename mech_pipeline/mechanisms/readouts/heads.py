"""What one attention head does: where it attends, and what it writes. Cost: one forward of the probe.

A head's share of the residual stream is W_O^h z^h, z^h its mixed values (Elhage et al. 2021); W_O^h are the columns of
the output weight that read the head. The bias of O belongs to no head and is left out, and so are final norms: a head's
output along an unembedding row is its direct effect on a logit only where the model has no final norm.
"""

from collections.abc import Callable
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mech_pipeline.errors import MechError
from mech_pipeline.mechanisms.anatomy import (
    attention,
    head_slice,
    head_weights,
    input_of,
    output_of,
    output_projection,
    unembedding,
)
from mech_pipeline.mechanisms.readouts.inputs import Attended, Contrast, Placed
from mech_pipeline.mechanisms.readouts.readout import Readout
from mech_pipeline.mechanisms.requirements import needs_head

P = TypeVar("P", bound=Placed)
Direction = Callable[[nn.Module, P], Float[Tensor, "example d_model"]]
"""From the model and probe data to a direction of the residual stream for each sequence."""


def attention_to(layer: int, head: int) -> Readout[Attended]:
    """Mean attention of a head from each query to its keys, in [0, 1].

    1: all attention is on the keys; uniform attention: about the number of keys / position. Queries without a key do
    not count.
    """

    def compute(model: nn.Module, data: Attended) -> Float[Tensor, ""]:
        head_slice(model, layer, head)  # says so if there is no such head
        pattern = output_of(model, attention(model, layer), data.tokens)[1]
        if pattern is None:
            raise MechError("needs attention patterns, which fused attention does not give", "leave fused_attention")
        mass = (pattern[:, head] * data.targets).sum(-1)
        return mass.sum() / data.targets.any(-1).sum()

    return Readout(compute, needs_head(layer, head))


def head_output_along(layer: int, head: int, direction: Direction[P]) -> Readout[P]:
    """Mean over sequences of ⟨d, W_O^h z^h⟩ at the position: what a head adds to the residual stream along d.

    Args:
        direction: `unembedding_difference` (the probe data are then a `Contrast`), or `fixed_direction(...)`.
    """

    def compute(model: nn.Module, data: P) -> Float[Tensor, ""]:
        place = head_slice(model, layer, head)
        mixed = input_of(model, output_projection(model, layer), data.tokens)
        example = torch.arange(len(data.tokens), device=data.tokens.device)
        along = direction(model, data) @ head_weights(model, layer, head).output  # [example, d_head]
        return (mixed[example, data.position][:, place] * along).sum(-1).mean()

    return Readout(compute, needs_head(layer, head))


def unembedding_difference(model: nn.Module, data: Contrast) -> Float[Tensor, "example d_model"]:
    """W_U[correct] − W_U[wrong]. It moves with the model: gradients reach W_U too."""
    rows = unembedding(model)
    return rows[data.correct] - rows[data.wrong]


def fixed_direction(vector: Float[Tensor, " d_model"]) -> Direction[Placed]:
    """The same direction for every sequence and every state of the model."""

    def direction(model: nn.Module, data: Placed) -> Float[Tensor, "example d_model"]:
        rows = unembedding(model)
        if len(vector) != rows.shape[1]:
            raise MechError(f"the direction has {len(vector)} entries, the residual stream {rows.shape[1]}", "fit it")
        return vector.to(rows).expand(len(data.tokens), -1)

    return direction
