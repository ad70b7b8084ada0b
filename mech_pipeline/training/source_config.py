"""What a checkpoint of `transformers` says of itself, beside what a run asks for.

What `model` has a field for must be the same: other code counts heads and layers by it. Everything else (rotary base and
scaling, epsilons, biases, tied embeddings, scales) is taken from the checkpoint's own config.json, so that the model is the
one that was published. What training could not repeat is refused by name.
"""

import json
from pathlib import Path
from typing import Any

from transformers import GPT2Config, GPTNeoXConfig, LlamaConfig, NanoChatConfig, Olmo2Config, PretrainedConfig

from mech_pipeline.errors import MechError
from mech_pipeline.spec.model import Model

_CONFIGS: dict[str, type[PretrainedConfig]] = {
    "gpt2": GPT2Config,
    "gpt_neox": GPTNeoXConfig,
    "llama": LlamaConfig,
    "olmo2": Olmo2Config,
    "nanochat": NanoChatConfig,
}
_SAME_FUNCTION = {
    "swish": "silu",
    "gelu_python": "gelu",
    "gelu_fast": "gelu_new",
    "gelu_pytorch_tanh": "gelu_new",
}
"""Names of `transformers` for activations that `model.activation` calls otherwise."""
_BY_LENGTH = ("dynamic", "longrope")
"""Rotary scalings that change with the length of what is read."""
_NEEDED = {
    "gpt2": {"add_cross_attention": False, "reorder_and_upcast_attn": False, "scale_attn_weights": True},
    "gpt_neox": {"attention_bias": True},
    "llama": {},
    "olmo2": {"attention_bias": False},
    "nanochat": {"attention_bias": False},
}
"""What patching and detectors (TransformerBridge) take for granted, or training does not do."""
_NOT_TRAINED = ("resid_pdrop", "embd_pdrop", "attn_pdrop", "attention_dropout", "hidden_dropout")


def source_config(
    written: dict[str, Any], source: str, spec: Model, vocabulary: int, context: int, attention: str
) -> PretrainedConfig:
    """The checkpoint's own configuration, without dropout.

    Args:
        written: its config.json.

    Raises:
        MechError: it cannot be read, says other than the spec, or asks for what is not trained here.
    """
    if written.get("model_type") != spec.family:
        raise _refused(source, "model_type", written.get("model_type"), "set model.family to it, if it is one of ours")
    config = _parsed(written, source, spec.family)
    _check_vocabulary(source, config, vocabulary)
    _check_fields(source, config, spec)
    _check_repeatable(source, config, written, context)
    changes: dict[str, Any] = {name: 0.0 for name in _NOT_TRAINED if hasattr(config, name)}
    for name, value in (
        changes | {"use_cache": False, "bos_token_id": None, "eos_token_id": None, "dtype": None}
    ).items():
        setattr(config, name, value)
    config._attn_implementation = attention
    return config


def read_config(path: Path, source: str) -> dict[str, Any]:
    """A config.json.

    Raises:
        MechError: it cannot be read, or is no mapping.
    """
    try:
        written = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise MechError(
            f"config.json of checkpoint {source} cannot be read: {' '.join(str(error).split())[:200]}",
            "save it again with `save_pretrained(folder)`",
        ) from error
    if not isinstance(written, dict):
        raise MechError(f"config.json of checkpoint {source} is no mapping", "save it with `save_pretrained(folder)`")
    return written


def _parsed(written: dict[str, Any], source: str, family: str) -> PretrainedConfig:
    try:
        return _CONFIGS[family].from_dict(written)
    except Exception as error:  # whatever the library raises for a field that is wrong
        raise MechError(
            f"config.json of checkpoint {source} is no configuration of {family}: {' '.join(str(error).split())[:300]}",
            "mend that field, or save it again with `save_pretrained(folder)`",
        ) from error


def _check_vocabulary(source: str, config: Any, vocabulary: int) -> None:
    if config.vocab_size != vocabulary:
        raise MechError(
            f"vocabulary mismatch: checkpoint {source} has {config.vocab_size} rows, the run asks for {vocabulary}",
            f"set model.vocabulary: {config.vocab_size}, and use the checkpoint's tokenizer",
        )


def _check_fields(source: str, config: Any, spec: Model) -> None:
    """Every field of the spec that says what the architecture is."""
    there = _as_fields(config, spec.family)
    here = {
        "layers": spec.layers,
        "heads": spec.heads,
        "kv_heads": spec.key_value_heads,
        "d_model": spec.d_model,
        "d_head": spec.head_width,
        "d_mlp": spec.mlp_width,
        "activation": spec.activation,
        "rotary_share": spec.rotary_share,
    }
    other = {name: value for name, (_, value) in there.items() if value != here[name]}
    if not other:
        return
    first = next(iter(other))
    more = f" (and {len(other) - 1} more)" if len(other) > 1 else ""
    raise MechError(
        f"checkpoint {source} does not fit the model: {there[first][0]} is {other[first]} in its config.json, and "
        f"model.{first} is {here[first]}{more}",
        f"set {', '.join(f'model.{name}: {value}' for name, value in other.items())}",
    )


def _as_fields(config: Any, family: str) -> dict[str, tuple[str, Any]]:
    """For each field of the spec: what `transformers` calls it, and its value."""
    activation = "activation_function" if family == "gpt2" else "hidden_act"
    inner = "n_inner" if family == "gpt2" else "intermediate_size"
    named = getattr(config, activation)
    found = {
        "layers": ("num_hidden_layers", config.num_hidden_layers),
        "heads": ("num_attention_heads", config.num_attention_heads),
        "d_model": ("hidden_size", config.hidden_size),
        "d_mlp": (inner, getattr(config, inner) or 4 * config.hidden_size),
        "activation": (activation, _SAME_FUNCTION.get(named, named)),
    }
    if family == "llama":
        found |= {
            "kv_heads": ("num_key_value_heads", config.num_key_value_heads),
            "d_head": ("head_dim", config.head_dim),
        }
    if family in ("olmo2", "nanochat"):
        found["kv_heads"] = ("num_key_value_heads", config.num_key_value_heads)
    if family == "gpt_neox":
        found["rotary_share"] = ("partial_rotary_factor", config.rope_parameters["partial_rotary_factor"])
    return found


def _check_repeatable(source: str, config: Any, written: dict[str, Any], context: int) -> None:
    """What the model would need that training, attribution or this context do not have."""
    longest = config.max_position_embeddings
    last_target = config.model_type != "gpt2"  # the last token is not read while it trains, and rotation has no table
    if context > longest + last_target:
        raise _refused(source, "max_position_embeddings", longest, f"set data.context: {longest} or less")
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") in _BY_LENGTH:
        raise _refused(source, "rope_type", rope["rope_type"], "name a checkpoint whose rotation is fixed")
    for name, needed in _NEEDED[config.model_type].items():
        if getattr(config, name) != needed:
            raise _refused(source, name, getattr(config, name), f"name a checkpoint in which it is {needed}")
    if written.get("quantization_config"):
        raise _refused(source, "quantization_config", "set", "name a checkpoint of plain weights")


def _refused(source: str, name: str, value: object, step: str) -> MechError:
    return MechError(f"checkpoint {source} does not fit the model: {name} is {value} in its config.json", step)
