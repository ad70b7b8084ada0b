"""The names of components from the names of parameters, for every architecture that is trained here."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from mech_pipeline.training.flat import Slot

_WHOLE = {
    "tok_embed": "embedding",
    "pos": "positions",
    "head": "unembedding",
    "ln_out": "final_norm",
    "transformer.wte": "embedding",
    "transformer.wpe": "positions",
    "transformer.ln_f": "final_norm",
    "gpt_neox.embed_in": "embedding",
    "gpt_neox.final_layer_norm": "final_norm",
    "model.embed_tokens": "embedding",
    "model.norm": "final_norm",
    "lm_head": "unembedding",
}
_IN_LAYER = {
    "ln1": "norm1",
    "ln2": "norm2",
    "ln_1": "norm1",
    "ln_2": "norm2",
    "input_layernorm": "norm1",
    "post_attention_layernorm": "norm2",
    "post_feedforward_layernorm": "norm3",
    "self_attn.q_norm": "Q_norm",
    "self_attn.k_norm": "K_norm",
    "mlp.fc_in": "MLP.in",
    "mlp.fc_out": "MLP.out",
    "mlp.fc1": "MLP.in",
    "mlp.fc2": "MLP.out",
    "mlp.c_fc": "MLP.in",
    "mlp.c_proj": "MLP.out",
    "mlp.dense_h_to_4h": "MLP.in",
    "mlp.dense_4h_to_h": "MLP.out",
    "mlp.gate_proj": "MLP.gate",
    "mlp.up_proj": "MLP.in",
    "mlp.down_proj": "MLP.out",
}
_LAYER = re.compile(r"(?:transformer\.h|gpt_neox\.layers|model\.layers|layers)\.(\d+)\.(.+)")


@dataclass(frozen=True)
class Heads:
    """How units of attention projections are shared by heads."""

    heads: int
    kv_heads: int

    def of(self, part: str, units: int) -> Callable[[int], str]:
        """Unit → "H3.Q", or "G1.K" where groups of heads share keys and values."""
        count = self.kv_heads if part in "KV" else self.heads
        letter = "H" if count == self.heads else "G"
        return lambda unit: f"{letter}{unit * count // units}.{part}"


def labels_of(slot: Slot, heads: Heads) -> tuple[list[str], int | None]:
    """The component of each unit along one dimension of a parameter, or of all of it (no dimension)."""
    module, _, kind = slot.name.rpartition(".")
    if module.split(".")[0] in ("tok_embed", "pos", "head", "ln_out"):
        module = module.split(".")[0]
    if module in _WHOLE:
        return [_WHOLE[module]], None
    found = _LAYER.fullmatch(module)
    if found is None:
        raise ValueError(f"parameter {slot.name} belongs to no known component")
    layer, place = f"L{found[1]}", found[2]
    if place in _IN_LAYER:
        return [f"{layer}.{_IN_LAYER[place]}"], None
    if found := re.fullmatch(r"mlp\.(\w+)", place):
        return [f"{layer}.MLP.{found[1]}"], None
    found = re.fullmatch(r"(?:attn|self_attn|attention)\.(\w+)", place)
    if found is None or found[1] not in _ATTENTION:
        raise ValueError(f"parameter {slot.name} belongs to no known component")
    units, along = _ATTENTION[found[1]](slot, kind, heads)
    return [f"{layer}{unit}" for unit in units], along


_NEURONS = {
    "mlp.fc_in": ("in", 0),
    "mlp.fc_out": ("out", 1),
    "mlp.fc1": ("in", 0),
    "mlp.fc2": ("out", 1),
    "mlp.gate": ("gate", 0),
    "mlp.in": ("in", 0),
    "mlp.out": ("out", 1),
    "mlp.c_fc": ("in", 1),  # Conv1D stores [in, out]
    "mlp.c_proj": ("out", 0),
    "mlp.dense_h_to_4h": ("in", 0),
    "mlp.dense_4h_to_h": ("out", 1),
    "mlp.gate_proj": ("gate", 0),
    "mlp.up_proj": ("in", 0),
    "mlp.down_proj": ("out", 1),
}
"""What a weight is to a neuron, and the dimension along which neurons lie."""


def neuron_labels(slot: Slot) -> tuple[list[str], int | None] | None:
    """As `labels_of`, by neuron; none for parameters that no neuron owns."""
    module, _, kind = slot.name.rpartition(".")
    found = _LAYER.fullmatch(module)
    if found is None or found[2] not in _NEURONS:
        return None
    part, along = _NEURONS[found[2]]
    if kind == "bias":
        if part == "out":
            return [f"L{found[1]}.MLP.out_bias"], None
        along = 0
    return [f"L{found[1]}N{neuron}.{part}" for neuron in range(slot.shape[along])], along


Projection = Callable[[Slot, str, Heads], tuple[list[str], int | None]]


def _separate(part: str) -> Projection:
    """Q, K or V in a weight of its own, [out, in]."""

    def units(slot: Slot, kind: str, heads: Heads) -> tuple[list[str], int | None]:
        label = heads.of(part, slot.shape[0])
        return [label(unit) for unit in range(slot.shape[0])], 0

    return units


def _output(along: int) -> Projection:
    """O, whose inputs lie along a dimension of the weight."""

    def units(slot: Slot, kind: str, heads: Heads) -> tuple[list[str], int | None]:
        if kind == "bias":
            return [".O_bias"], None
        label = heads.of("O", slot.shape[along])
        return [label(unit) for unit in range(slot.shape[along])], along

    return units


def _thirds(slot: Slot, kind: str, heads: Heads) -> tuple[list[str], int | None]:
    """GPT-2: all queries, then all keys, then all values, along the last dimension."""
    width = slot.shape[-1] // 3
    return [heads.of("QKV"[unit // width], width)(unit % width) for unit in range(3 * width)], len(slot.shape) - 1


def _interleaved(slot: Slot, kind: str, heads: Heads) -> tuple[list[str], int | None]:
    """GPT-NeoX: query, key and value of the first head, then of the second, …, along the first dimension."""
    width = slot.shape[0] // (3 * heads.heads)
    return [f"H{unit // (3 * width)}.{'QKV'[unit // width % 3]}" for unit in range(slot.shape[0])], 0


_ATTENTION: dict[str, Projection] = {
    **{name: _separate(name.upper()) for name in "qkv"},
    **{f"{name}_proj": _separate(name.upper()) for name in "qkv"},
    "o": _output(1),
    "o_proj": _output(1),
    "dense": _output(1),
    "c_proj": _output(0),
    "c_attn": _thirds,
    "query_key_value": _interleaved,
}
