"""What one parameter of one module adds to ⟨∇ℓ_i, V⟩, by kind of module.

    weight of a linear layer    Σ_t g_t a_tᵀ                      `outer_products.py`
    embedding                   g_t in the row of token t
    bias; scale of a norm       Σ_t g_t;   Σ_t g_t ∘ normalised input

Every module that is captured is linear in its parameters, so these are all.
"""

from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mech_pipeline.attribution.per_example.outer_products import (
    bytes_at_once,
    example_sums,
    outer_is_cheaper,
    token_sums,
)
from mech_pipeline.attribution.per_example.units import Part


def in_dtype(dtype: torch.dtype, value: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Factors of bf16 training in the precision of the directions; token ids stay what they are."""
    return value.to(dtype) if value.is_floating_point() else value, gradient.to(dtype)


def sums_per_example(module: nn.Module, part: Part, value: Tensor, gradient: Tensor, v: Tensor) -> Tensor:
    """One parameter's contribution per direction, example and run."""
    if isinstance(module, nn.Embedding):
        return _embedded(value, gradient, v).sum(2)[..., None]
    if part.kind == "weight" and v.dim() == 3:
        split = len(part.component) > 1
        narrow = not outer_is_cheaper(gradient.shape[1], len(v))
        left, right, v = _sides(module, part, value, gradient, v, split=split, narrow=narrow)
        return example_sums(left, right, v, part.width if split else left.shape[-1])
    summed = vector_gradient(module, part, value, gradient).sum(1)
    return _runs(part, summed, v, len(part.component))


def sums_per_token(module: nn.Module, part: Part, value: Tensor, gradient: Tensor, v: Tensor, *, split: bool) -> Tensor:
    """One parameter's contribution per direction, example, token and run (or one run for all)."""
    if isinstance(module, nn.Embedding):
        return _embedded(value, gradient, v)[..., None]
    if part.kind == "weight" and v.dim() == 3:
        left, right, v = _sides(module, part, value, gradient, v, split=split, narrow=True)
        return token_sums(left, right, v, part.width if split else left.shape[-1])
    return _runs(part, vector_gradient(module, part, value, gradient), v, len(part.component) if split else 1)


def _sides(
    module: nn.Module, part: Part, value: Tensor, gradient: Tensor, v: Tensor, *, split: bool, narrow: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """(side that is kept, side that is summed, V) of a matrix: kept is the one to split, else the first or narrower."""
    rows, columns = matrix_sides(module, value, gradient)
    if part.axis == 0:
        rows = part.needed(rows, 2)
    elif part.axis == 1:
        columns = part.needed(columns, 2)
    by_columns = part.axis == 1 if split else narrow and columns.shape[-1] < rows.shape[-1]
    return (columns, rows, v.transpose(1, 2)) if by_columns else (rows, columns, v)


def matrix_sides(module: nn.Module, value: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """x and y of Σ_t x_t y_tᵀ, the gradient of a weight as it is stored."""
    return (gradient, value) if isinstance(module, nn.Linear) else (value, gradient)  # Conv1D is [in, out]


def vector_gradient(module: nn.Module, part: Part, value: Tensor, gradient: Tensor) -> Tensor:
    """Per-token gradient of a bias or of a norm's scale, [example, token, unit]."""
    own = gradient if part.kind == "bias" else gradient * _normalised(module, value)
    return own if part.axis is None else part.needed(own, 2)


def _runs(part: Part, gradients: Tensor, v: Tensor, runs: int) -> Tensor:
    """⟨gradient, V⟩ [direction, …, run] of a vector parameter."""
    split = gradients.reshape(-1, runs, gradients.shape[-1] // runs).transpose(0, 1)
    found = split @ v.reshape(len(v), runs, -1).permute(1, 2, 0)
    return found.permute(2, 1, 0).reshape(len(v), *gradients.shape[:-1], runs)


def _embedded(value: Tensor, gradient: Tensor, v: Tensor) -> Float[Tensor, "direction example token"]:
    """⟨g_t, V[token t]⟩: only rows of tokens that occur are read, nothing is as large as the vocabulary."""
    if value.stride(0) == 0:  # one row for all examples, as positions are given
        return torch.einsum("ktd,etd->ket", v.index_select(1, value[0]), gradient)
    ids, flat = value.reshape(-1), gradient.reshape(-1, gradient.shape[-1])
    step = max(1, bytes_at_once(flat) // (flat.shape[-1] * flat.element_size()))
    found = [
        torch.stack([(one.index_select(0, ids[some]) * flat[some]).sum(-1) for one in v])
        for some in (slice(begin, begin + step) for begin in range(0, len(flat), step))
    ]
    return torch.cat(found, dim=1).view(len(v), *value.shape)


def _normalised(module: nn.Module, value: Tensor) -> Tensor:
    """The input of a norm layer after normalisation, before its learnt scale."""
    if isinstance(module, nn.LayerNorm):
        return F.layer_norm(value, module.normalized_shape, eps=module.eps)
    from transformer_lens.model_bridge.sources.native.model import NativeRMSNorm
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    assert isinstance(module, NativeRMSNorm | LlamaRMSNorm), "Capture admits no other kind"
    eps = cast(float, module.variance_epsilon if isinstance(module, LlamaRMSNorm) else module.eps)
    return value * torch.rsqrt(value.square().mean(-1, keepdim=True) + eps)
