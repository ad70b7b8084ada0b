"""A step of OLMo-2 as `transformers` has it, with Adam's moments.

    model.pt    transformer.wte, .ln_f, .ff_out; .blocks.<i>.{att_proj, attn_out, q_norm, k_norm, attn_norm, ff_proj, …}
    optim.pt    state: exp_avg and exp_avg_sq by the same names; train.pt: global_step

`att_proj` is queries, keys and values below each other, `ff_proj` the MLP's up projection and then its gate. Rotary positions turn
halves against each other, as in `transformers`. Moments are cut like the weights.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from mech_pipeline.errors import MechError
from mech_pipeline.exchange.suites.converting.torch_optimizer import ADAM_MOMENTS
from mech_pipeline.exchange.suites.converting.unpickle import tensors_of
from mech_pipeline.exchange.suites.converting.written import Named, Parts

_ENDS = {"wte": "model.embed_tokens", "ln_f": "model.norm", "ff_out": "lm_head"}
_IN_LAYER = {
    "attn_out": "self_attn.o_proj",
    "q_norm": "self_attn.q_norm",
    "k_norm": "self_attn.k_norm",
    "attn_norm": "post_attention_layernorm",
    "ff_out": "mlp.down_proj",
    "ff_norm": "post_feedforward_layernorm",
}
_LAYER = re.compile(r"transformer\.blocks\.(\d+)\.(\w+)\.weight")


def converted(files: Sequence[Path], config: dict[str, Any], scratch: Path, step: int | None) -> Parts:
    """Weights, and moments if there is an optim.pt.

    Args:
        files: model.pt, optim.pt, train.pt, whether they are there or not.
        config: in `transformers`.

    Raises:
        MechError: a parameter is none of OLMo-2's, or the moments are of another step or not whole.
    """
    there = [path for path in files if path.is_file()]
    if files[0] not in there:
        raise MechError(f"{files[0].parent.name} has no {files[0].name}", "fetch the revision again")
    read = dict(zip([path.name for path in there], tensors_of(there, scratch), strict=True))
    parts = {"model": read[files[0].name][1]}
    if files[2].name in read:
        said = read[files[2].name][0].get("global_step")
        if step is not None and said != step:
            raise MechError(f"{files[2]} is of step {said}, expected {step}", "fetch the revision again")
    if files[1].name in read:
        parts |= _moments(read[files[1].name][1], parts["model"], str(files[1]))
    return {
        part: dict(each for name, tensor in named.items() for each in _as_transformers(name, tensor.float(), config))
        for part, named in parts.items()
    }


def _moments(tensors: Named, weights: Named, what: str) -> Parts:
    found: Parts = {}
    for part in ADAM_MOMENTS:
        named = {name: tensors.get(f"state/{name}/{part}") for name in weights}
        if missing := [name for name, tensor in named.items() if tensor is None or tensor.shape != weights[name].shape]:
            raise MechError(f"{what} has no {part} of {missing[0]} in its shape", "it is not whole: fetch it again")
        found[part] = {name: tensor for name, tensor in named.items() if tensor is not None}
    return found


def _as_transformers(name: str, tensor: Tensor, config: dict[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """A parameter, or the parts of a fused one, under the names of `transformers`."""
    end = name.removeprefix("transformer.").removesuffix(".weight")
    found = _LAYER.fullmatch(name)
    if end in _ENDS:
        yield f"{_ENDS[end]}.weight", tensor
    elif found is not None and found[2] in _IN_LAYER:
        yield f"model.layers.{found[1]}.{_IN_LAYER[found[2]]}.weight", tensor
    elif found is not None and found[2] == "att_proj":
        width = config["hidden_size"] // config["num_attention_heads"]
        sizes = [width * config[f"num_{kind}_heads"] for kind in ("attention", "key_value", "key_value")]
        if sum(sizes) != len(tensor):
            raise MechError(f"parameter {name} has {len(tensor)} rows, expected {sum(sizes)}", "fetch it again")
        for letter, part in zip("qkv", tensor.split(sizes), strict=True):
            yield f"model.layers.{found[1]}.self_attn.{letter}_proj.weight", part
    elif found is not None and found[2] == "ff_proj":
        for kind, part in zip(("up", "gate"), tensor.chunk(2), strict=True):
            yield f"model.layers.{found[1]}.mlp.{kind}_proj.weight", part
    else:
        raise MechError(f"parameter {name} is none of OLMo-2's", "choose another layout")
