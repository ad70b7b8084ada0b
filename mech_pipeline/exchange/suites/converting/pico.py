"""A step of Pico as a Llama of `transformers`, with Adam's moments.

    model.safetensors               pico_decoder.<parameter>
    fabric_state/checkpoint.pt      _model: the same parameters; _optimizer: torch.optim's state, by number; _checkpoint_step
    or fabric_state/checkpoint/     DeepSpeed's files (`zero.py`), the step among what the model's file holds: _checkpoint_step

Both are the same function once queries and keys are sorted: Pico rotates neighbouring pairs of a head's dimensions, Llama of
`transformers` rotates its two halves against each other, so row 2i of a head becomes row i and 2i + 1 becomes d/2 + i.
Adam's moments are sorted alike. DeepSpeed trains in half precision beside fp32 masters: these are taken, not the weights in
safetensors. The folder is as Pico's and Lightning Fabric's sources write it; no file of theirs was read here.
"""

import re
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from mech_pipeline.errors import MechError
from mech_pipeline.exchange.suites.converting.torch_optimizer import moments_by_number
from mech_pipeline.exchange.suites.converting.unpickle import tensors_of
from mech_pipeline.exchange.suites.converting.written import Named, Parts
from mech_pipeline.exchange.suites.converting.zero import joined, read_ranks

_STATE, DEEPSPEED = "fabric_state/checkpoint.pt", "fabric_state/checkpoint"
_ENDS = {
    "embedding_proj": "model.embed_tokens",
    "output_norm": "model.norm",
    "de_embedding_proj": "lm_head",
}
_IN_LAYER = {
    "attention.q_proj": "self_attn.q_proj",
    "attention.k_proj": "self_attn.k_proj",
    "attention.v_proj": "self_attn.v_proj",
    "attention.o_proj": "self_attn.o_proj",
    "attention_norm": "input_layernorm",
    "swiglu_norm": "post_attention_layernorm",
    "swiglu.w_0": "mlp.gate_proj",
    "swiglu.w_1": "mlp.up_proj",
    "swiglu.w_2": "mlp.down_proj",
}
_LAYER = re.compile(r"layers\.(\d+)\.(.+)")


def converted(folder: Path, config: dict[str, Any], scratch: Path, step: int | None) -> Parts:
    """Weights, and moments if there is a Fabric state.

    Args:
        config: of the Llama that it becomes.

    Raises:
        MechError: a parameter is none of Pico's, or the Fabric state is of another step or of other parameters.
    """
    weights: Named = {}
    for path in folder.glob("*.safetensors"):
        weights |= {name.removeprefix("pico_decoder."): tensor for name, tensor in load_file(path).items()}
    parts = {"model": weights}
    if (folder / _STATE).is_file():
        parts |= _moments(folder, scratch, step)
    elif (folder / DEEPSPEED).is_dir():
        parts |= _of_ranks(folder, scratch, step)
    return {
        part: {as_llama(name): _sorted(name, tensor, config) for name, tensor in named.items()}
        for part, named in parts.items()
    }


def _moments(folder: Path, scratch: Path, step: int | None) -> Parts:
    ((plain, tensors),) = tensors_of([folder / _STATE], scratch)
    _check_step(plain, step, f"{folder.name}: {_STATE}")
    shapes = {
        name.removeprefix("_model/").removeprefix("_orig_mod."): tensor.shape
        for name, tensor in tensors.items()
        if name.startswith("_model/")
    }
    return moments_by_number(tensors, "_optimizer", shapes, f"{folder.name}/{_STATE}")


def _of_ranks(folder: Path, scratch: Path, step: int | None) -> Parts:
    """Masters and moments of all ranks; nothing where DeepSpeed shared none."""
    (plain, _), *ranks = read_ranks(folder / DEEPSPEED, scratch)
    _check_step(plain, step, f"{folder.name}: {DEEPSPEED}")
    return joined(folder / DEEPSPEED, plain, [tensors for _, tensors in ranks]) if ranks else {}


def _check_step(plain: dict[str, Any], step: int | None, what: str) -> None:
    said = plain.get("_checkpoint_step")
    if step is not None and said != step:
        raise MechError(f"{what} is of step {said}, expected {step}", "fetch the revision again")


def as_llama(name: str) -> str:
    """A parameter of Pico as `transformers` calls it in a Llama.

    >>> as_llama("layers.3.swiglu.w_0.weight"), as_llama("de_embedding_proj.weight")
    ('model.layers.3.mlp.gate_proj.weight', 'lm_head.weight')
    """
    module, _, kind = name.rpartition(".")
    if module in _ENDS:
        return f"{_ENDS[module]}.{kind}"
    found = _LAYER.fullmatch(module)
    if found is None or found[2] not in _IN_LAYER:
        raise MechError(f"parameter {name} is none of Pico's", "choose another layout")
    return f"model.layers.{found[1]}.{_IN_LAYER[found[2]]}.{kind}"


def _sorted(name: str, tensor: Tensor, config: dict[str, Any]) -> Tensor:
    """Rows of queries and keys in the order that `transformers` rotates."""
    heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}.get(
        name.split(".")[-2] if "." in name else ""
    )
    if heads is None:
        return tensor
    return tensor.unflatten(0, (config[heads], -1, 2)).transpose(1, 2).flatten(0, 2)
