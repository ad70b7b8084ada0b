"""Where attention heads, neurons and the unembedding are in the modules of every model family, and what passes there.

Weights are views of the trained parameters and recorded tensors keep their graph, so gradients of any order reach what is
trained.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mech_pipeline.errors import MechError
from mech_pipeline.mechanisms.requirements import missing_head


@dataclass(frozen=True)
class _Names:
    """Names of modules.

    Attributes:
        layers: the list of blocks.
        norm: inside a block, the norm before attention; the identity in models without norms. OLMo-2 has its norms behind
            attention and MLP, so what asks for this one is refused there.
        attention: inside a block.
        output: O, inside attention.
        neurons: inside a block, the MLP's second matrix, whose input are the neurons' activations.
        unembedding: from the residual stream to logits.
        final_norm: before it; the identity in models without norms.
    """

    layers: str
    norm: str
    attention: str
    output: str
    neurons: str
    unembedding: str
    final_norm: str


_FAMILIES: dict[str, _Names] = {
    "NativeModel": _Names("layers", "ln1", "attn", "o", "mlp.fc_out", "head", "ln_out"),
    "GPT2LMHeadModel": _Names("transformer.h", "ln_1", "attn", "c_proj", "mlp.c_proj", "lm_head", "transformer.ln_f"),
    "GPTNeoXForCausalLM": _Names(
        "gpt_neox.layers",
        "input_layernorm",
        "attention",
        "dense",
        "mlp.dense_4h_to_h",
        "lm_head",
        "gpt_neox.final_layer_norm",
    ),
    "LlamaForCausalLM": _Names(
        "model.layers", "input_layernorm", "self_attn", "o_proj", "mlp.down_proj", "lm_head", "model.norm"
    ),
    "Olmo2ForCausalLM": _Names(
        "model.layers", "input_layernorm", "self_attn", "o_proj", "mlp.down_proj", "lm_head", "model.norm"
    ),
    "NanoChatForCausalLM": _Names(
        "model.layers", "input_layernorm", "self_attn", "o_proj", "mlp.fc2", "lm_head", "model.norm"
    ),
}
"""By the name of the class, or of one it is derived from: importing the libraries that define them takes seconds."""


@dataclass(frozen=True)
class HeadWeights:
    """The weights of one head, biases aside. Heads that share keys and values have the same `key` and `value`."""

    query: Float[Tensor, "d_head d_model"]
    key: Float[Tensor, "d_head d_model"]
    value: Float[Tensor, "d_head d_model"]
    output: Float[Tensor, "d_model d_head"]


def layer_count(model: nn.Module) -> int:
    """Layers of a model."""
    return len(list(model.get_submodule(_names(model).layers).children()))


def head_count(model: nn.Module) -> int:
    """Heads of a layer."""
    return _head_counts(model)[0]


def block(model: nn.Module, layer: int) -> nn.Module:
    """A whole layer: the first argument of its forward is the residual stream.

    Raises:
        MechError: there is no such layer.
    """
    return _in_layer(model, layer, "")


def attention_norm(model: nn.Module, layer: int) -> nn.Module:
    """From the residual stream to what queries, keys and values of a layer are made of."""
    return _in_layer(model, layer, _names(model).norm)


def attention(model: nn.Module, layer: int) -> nn.Module:
    """The attention module of a layer; the second result of its forward is the pattern.

    Raises:
        MechError: there is no such layer.
    """
    return _in_layer(model, layer, _names(model).attention)


def output_projection(model: nn.Module, layer: int) -> nn.Module:
    """O of a layer: its input are the mixed values of all heads, one head after the other."""
    names = _names(model)
    return _in_layer(model, layer, f"{names.attention}.{names.output}")


def neuron_projection(model: nn.Module, layer: int) -> nn.Module:
    """The second matrix of a layer's MLP: its input are the activations of the neurons.

    Raises:
        MechError: there is no such layer, or it has no MLP.
    """
    return _in_layer(model, layer, _names(model).neurons)


def output_weights(model: nn.Module, layer: int) -> Float[Tensor, "d_model in"]:
    """What a layer's heads write with, one head's columns after the other's."""
    return _weight(output_projection(model, layer))


def neuron_weights(model: nn.Module, layer: int) -> Float[Tensor, "d_model neuron"] | None:
    """What a layer's neurons write with, a column each; none if it has no MLP."""
    try:
        return _weight(neuron_projection(model, layer))
    except MechError:
        return None


def final_norm(model: nn.Module) -> nn.Module:
    """The norm before the unembedding; the identity in models without norms."""
    return model.get_submodule(_names(model).final_norm)


def unembedding_module(model: nn.Module) -> nn.Module:
    """From the residual stream to logits; its weight is W_U."""
    return model.get_submodule(_names(model).unembedding)


def unembedding(model: nn.Module) -> Float[Tensor, "vocabulary d_model"]:
    """W_U, a row for each token."""
    return _weight(unembedding_module(model))


def head_slice(model: nn.Module, layer: int, head: int) -> slice:
    """Where a head is in the input of O.

    Raises:
        MechError: there is no such head.
    """
    heads, _ = _head_counts(model)
    if sentence := missing_head(layer, head, layer_count(model), heads):
        raise MechError(sentence, "name a head that the model has")
    width = _weight(output_projection(model, layer)).shape[1] // heads
    return slice(head * width, (head + 1) * width)


def head_weights(model: nn.Module, layer: int, head: int) -> HeadWeights:
    """Q, K, V and O of one head.

    Raises:
        MechError: there is no such head.
    """
    place = head_slice(model, layer, head)
    heads, shared = _head_counts(model)
    width, group = place.stop - place.start, head * shared // heads
    query, key, value = _projections(attention(model, layer), heads)
    common = slice(group * width, (group + 1) * width)
    output = _weight(output_projection(model, layer))[:, place]
    return HeadWeights(query[place], key[common], value[common], output)


def input_projection(
    model: nn.Module, layer: int, kind: Literal["Q", "K", "V"]
) -> tuple[nn.Module, Bool[Tensor, " out"]]:
    """The module that makes a layer's queries, keys or values, and which entries of its output they are."""
    heads, _ = _head_counts(model)
    parts: Any = attention(model, layer)
    index = "QKV".index(kind)
    if hasattr(parts, "c_attn"):
        place = torch.arange(3).repeat_interleave(_weight(parts.c_attn).shape[0] // 3)
        return parts.c_attn, place == index
    if hasattr(parts, "query_key_value"):
        width = _weight(parts.query_key_value).shape[0] // (3 * heads)
        return parts.query_key_value, torch.arange(3).repeat_interleave(width).repeat(heads) == index
    module = getattr(parts, kind.lower() + ("_proj" if hasattr(parts, "q_proj") else ""))
    return module, torch.ones(len(_weight(module)), dtype=torch.bool)


def input_of(model: nn.Module, part: nn.Module, tokens: Int[Tensor, "example token"]) -> Tensor:
    """What enters a module when the model reads tokens."""
    entered: list[Tensor] = []
    hook = part.register_forward_pre_hook(lambda _module, arguments: entered.append(arguments[0]))
    try:
        model(tokens)
    finally:
        hook.remove()
    return entered[-1]


def output_of(model: nn.Module, part: nn.Module, tokens: Int[Tensor, "example token"]) -> Any:
    """What leaves a module when the model reads tokens."""
    left: list[Any] = []
    hook = part.register_forward_hook(lambda _module, _arguments, output: left.append(output))
    try:
        model(tokens)
    finally:
        hook.remove()
    return left[-1]


def _names(model: nn.Module) -> _Names:
    for kind in type(model).__mro__:
        if kind.__name__ in _FAMILIES:
            return _FAMILIES[kind.__name__]
    raise MechError(
        f"needs a model of a known family, got {type(model).__name__}", "add the family to mechanisms/anatomy.py"
    )


def _in_layer(model: nn.Module, layer: int, name: str) -> nn.Module:
    count = layer_count(model)
    if not 0 <= layer < count:
        raise MechError(f"needs layer {layer}; the model has layers 0 to {count - 1}", "name a layer that it has")
    try:
        return model.get_submodule(f"{_names(model).layers}.{layer}{name and f'.{name}'}")
    except AttributeError as error:
        step = "name another mechanism" if name == _names(model).norm else "set model.d_mlp for an MLP"
        raise MechError(f"needs {name} of layer {layer}; the model has none", step) from error


def _head_counts(model: nn.Module) -> tuple[int, int]:
    """Heads of a layer, and how many of them have keys and values of their own."""
    known: Any = model
    if hasattr(known, "cfg"):  # native models; those of `transformers` have a config
        return known.cfg.n_heads, known.cfg.n_key_value_heads or known.cfg.n_heads
    config = known.config
    return config.num_attention_heads, getattr(config, "num_key_value_heads", None) or config.num_attention_heads


def _projections(module: nn.Module, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Q, K and V of a layer, each [heads · d_head, d_model]."""
    parts: Any = module
    if hasattr(parts, "c_attn"):  # GPT-2: all queries, then all keys, then all values
        query, key, value = _weight(parts.c_attn).chunk(3)
    elif hasattr(parts, "query_key_value"):  # GPT-NeoX: query, key, value of the first head, then of the second, …
        query, key, value = _weight(parts.query_key_value).unflatten(0, (heads, 3, -1)).unbind(1)
        query, key, value = query.flatten(0, 1), key.flatten(0, 1), value.flatten(0, 1)
    else:
        suffix = "_proj" if hasattr(parts, "q_proj") else ""
        query, key, value = (_weight(getattr(parts, letter + suffix)) for letter in "qkv")
    return query, key, value


def _weight(module: nn.Module) -> Float[Tensor, "out in"]:
    """A linear layer's weight; GPT-2 keeps it transposed."""
    weight: Any = module.weight
    return weight.T if type(module).__name__ == "Conv1D" else weight
