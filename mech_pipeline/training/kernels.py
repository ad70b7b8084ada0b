"""Modules of the trained models computed another way: same parameters, same results.

Attention adds its mask inside the score product (`baddbmm`) instead of masking twice: a training step takes 0.8 and a
double backward 0.73 of the stock time (2 layers, width 64, context 64, one thread). Fused kernels are no faster there,
and give neither a pattern nor second derivatives; at context 256 they save a tenth of a step, so training may ask for
them with `fused_attention`.
Softmax and RMS norm keep float64 when they get float64, so that double-precision checks are double precision throughout.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformer_lens.model_bridge.sources.native import NativeAttention
from transformer_lens.model_bridge.sources.native.model import NativeRMSNorm
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from mech_pipeline.training.attention import MATH_ATTENTION as MATH_ATTENTION  # registered below
from mech_pipeline.training.attention import fused

_FORBIDDEN = "heads_without_previous_token"
"""Under which an attention module keeps its heads that cannot attend to the token before."""


def causal_attention(
    query: Float[Tensor, "example head token d_head"],
    key: Float[Tensor, "example kv_head token d_head"],
    value: Float[Tensor, "example kv_head token d_head"],
    scaling: float,
    no_previous: Sequence[int] = (),
) -> tuple[Float[Tensor, "example head token d_head"], Float[Tensor, "example head token token"] | None]:
    """Mixed values and pattern of causal attention on unpadded sequences; key-value heads may be shared by groups.

    There is no pattern inside `fused_attention`.

    Args:
        no_previous: heads that cannot attend to the token before; never computed by the fused kernel.
    """
    batch, heads, length, width = query.shape
    if key.shape[1] != heads:
        key, value = (x.repeat_interleave(heads // x.shape[1], dim=1) for x in (key, value))
    if fused.get() and not no_previous:
        return F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling), None
    query, key, value = (x.reshape(batch * heads, length, width) for x in (query, key, value))
    mask = torch.full((length, length), float("-inf"), dtype=query.dtype, device=query.device).triu(1)
    if no_previous:
        mask = _without_previous(mask, heads, no_previous).repeat(batch, 1, 1)
    pattern = torch.softmax(torch.baddbmm(mask, query, key.transpose(1, 2), alpha=scaling), dim=-1)
    return (pattern @ value).view(batch, heads, length, width), pattern.view(batch, heads, length, length)


def _without_previous(
    mask: Float[Tensor, "token token"], heads: int, forbidden: Sequence[int]
) -> Float[Tensor, "head token token"]:
    """The mask of each head; query t of the forbidden ones does not see key t − 1."""
    masks = mask.repeat(heads, 1, 1)
    masks[list(forbidden)] = masks[list(forbidden)].masked_fill(
        torch.ones_like(mask).tril(-1).triu(-1).bool(), float("-inf")
    )
    return masks


@contextmanager
def without_previous_token(attention: nn.Module, heads: Sequence[int]) -> Iterator[None]:
    """While the block runs, these heads of an attention module cannot attend to the token before."""
    before = _forbidden(attention)
    attention.__dict__[_FORBIDDEN] = (*before, *heads)
    try:
        yield
    finally:
        attention.__dict__[_FORBIDDEN] = before


def _forbidden(attention: nn.Module) -> tuple[int, ...]:
    heads: tuple[int, ...] = attention.__dict__.get(_FORBIDDEN, ())
    return heads


class AddedMaskAttention(NativeAttention):
    """Drop-in for `NativeAttention` on unpadded, causal batches."""

    def forward(  # type: ignore[override]  # the stock signature also takes padding masks and hooks
        self,
        hidden_states: Float[Tensor, "example token d_model"],
        attention_mask: None = None,
        position_ids: Int[Tensor, "example token"] | None = None,
        **unused: object,
    ) -> tuple[Float[Tensor, "example token d_model"], Float[Tensor, "example head token token"] | None]:
        """Attention output and pattern."""
        assert attention_mask is None, "training batches are never padded"
        batch, length = hidden_states.shape[:2]
        query, key, value = (
            project(hidden_states).view(batch, length, self.n_heads, self.d_head).transpose(1, 2)
            for project in (self.q, self.k, self.v)
        )
        if self.rotary is not None:
            query, key = self.rotary.apply_rope(query, key, position_ids=position_ids)
        mixed, pattern = causal_attention(query, key, value, 1 / self.scale, _forbidden(self))
        return self.o(mixed.transpose(1, 2).reshape(batch, length, -1)), pattern


class PromotingRMSNorm(NativeRMSNorm):
    """Drop-in for `NativeRMSNorm`: at least float32 inside, float64 for float64."""

    def forward(self, x: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
        """x / √(mean x² + eps), times the learnt scale."""
        return self.weight * _rms_normalised(x, self.eps)


class PromotingLlamaRMSNorm(LlamaRMSNorm):
    """The same for `transformers`' Llama."""

    def forward(self, hidden_states: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
        """x / √(mean x² + eps), times the learnt scale."""
        return self.weight * _rms_normalised(hidden_states, self.variance_epsilon)


def _rms_normalised(x: Tensor, eps: float) -> Tensor:
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(x.dtype)


def use_training_kernels(model: nn.Module) -> None:
    """Switches attention and RMS norm of a model to the ones above; parameters stay the same objects."""
    for module in model.modules():
        if isinstance(module, NativeAttention):
            unusual = not module.causal or module.kv_repeats != 1 or module.attn_scores_soft_cap > 0
            assert not unusual, "model_config asks for plain causal attention"
            module.__class__ = AddedMaskAttention
        elif isinstance(module, NativeRMSNorm):
            module.__class__ = PromotingRMSNorm
        elif isinstance(module, LlamaRMSNorm):
            module.__class__ = PromotingLlamaRMSNorm


def _transformers_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None = None,
    scaling: float | None = None,
    **unused: object,
) -> tuple[Tensor, Tensor | None]:
    """`causal_attention` with the signature that `transformers` calls."""
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    mixed, pattern = causal_attention(query, key, value, scale, _forbidden(module))
    return mixed.transpose(1, 2), pattern


def _no_mask(*unused: object, **unused_too: object) -> None:
    """`causal_attention` brings its own."""


AttentionInterface.register(MATH_ATTENTION, _transformers_attention)
AttentionMaskInterface.register(MATH_ATTENTION, _no_mask)
