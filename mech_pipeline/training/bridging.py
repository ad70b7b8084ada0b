"""A TransformerBridge around the parameters of a trained model: no copies, no folding.

Where an architecture keeps queries, keys and values in one matrix (GPT-2, GPT-NeoX), TransformerBridge copies them apart
when it is made. Here the parts are slices of the one parameter, taken when they are used: a new state is seen at once,
and gradients reach what is trained.
"""

from collections.abc import Callable

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.model_bridge.bridge import TransformerBridge
from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module
from transformer_lens.model_bridge.sources.native import NativeModel

from mech_pipeline.training.native import NATIVE

Slicer = Callable[[Tensor], Tensor]


class SlicedLinear(nn.Linear):
    """A linear layer whose weight and bias are parts of another module's.

    Args:
        fused: the module that has the parameters; it stays the only one that does.
        weight_of: from its weight to this layer's, [out, in].
        bias_of: from its bias to this layer's, [out].
    """

    def __init__(self, fused: nn.Module, weight_of: Slicer, bias_of: Slicer) -> None:
        nn.Module.__init__(self)
        # Not as a submodule: its parameters would be listed twice.
        self.__dict__.update(_fused=fused, _weight_of=weight_of, _bias_of=bias_of)
        self.out_features, self.in_features = self.weight.shape

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """The slice of the fused weight, [out, in]."""
        return self.__dict__["_weight_of"](self.__dict__["_fused"].weight)

    @property
    def bias(self) -> Tensor:  # type: ignore[override]
        """The slice of the fused bias, [out]."""
        return self.__dict__["_bias_of"](self.__dict__["_fused"].bias)

    def forward(self, input: Float[Tensor, "... in"]) -> Float[Tensor, "... out"]:
        """x Wᵀ + b."""
        return F.linear(input, self.weight, self.bias)


def bridge(model: nn.Module) -> TransformerBridge:
    """A TransformerBridge around the model's own parameters. It rewires the module: build it with `for_bridge`."""
    if isinstance(model, NativeModel):
        return build_bridge_from_module(model, architecture=NATIVE, tl_config=model.cfg, model_name="native")
    architecture = type(model).__name__
    made = build_bridge_from_module(model, architecture=architecture, hf_config=model.config, model_name=architecture)
    for block in made.blocks:
        attention = block.attn
        fused = attention.original_component
        if hasattr(fused, "c_attn"):
            for index, part in enumerate((attention.q, attention.k, attention.v)):
                part.set_original_component(SlicedLinear(fused.c_attn, *_gpt2_part(index)))
        elif hasattr(fused, "query_key_value"):
            for index, part in enumerate((attention.q, attention.k, attention.v)):
                part.set_original_component(SlicedLinear(fused.query_key_value, *_neox_part(index, made.cfg.n_heads)))
    return made


def _gpt2_part(index: int) -> tuple[Slicer, Slicer]:
    """Q, K or V of a weight [in, 3 · d_model]."""
    return lambda weight: weight.chunk(3, dim=1)[index].T, lambda bias: bias.chunk(3)[index]


def _neox_part(index: int, heads: int) -> tuple[Slicer, Slicer]:
    """Q, K or V of a weight [heads · 3 · d_head, in], head by head."""

    def part(tensor: Tensor) -> Tensor:
        return tensor.unflatten(0, (heads, 3, -1))[:, index].flatten(0, 1)

    return part, part
