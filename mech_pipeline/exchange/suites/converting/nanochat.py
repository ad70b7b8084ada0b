"""A step of nanochat as `transformers` has it, with the moments of AdamW and Muon.

    model_….pt          transformer.wte, transformer.h.<i>.{attn.c_q, c_k, c_v, c_proj, mlp.c_fc, c_proj}, lm_head
    optim_…_rank<r>.pt  [AdamW of lm_head and wte, Muon of all matrices]; with several ranks AdamW's moments are cut along
                        rows, and a matrix's momentum is on the rank that owns it

Muon numbers matrices group by group: of one size (one rank) or one shape (several), and inside a group as the model has them.
Muon has no second moment: `exp_avg` is its momentum and `exp_avg_sq` is 0, as in runs that are trained here.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from mech_pipeline.errors import MechError
from mech_pipeline.exchange.suites.converting.torch_optimizer import ADAM_MOMENTS
from mech_pipeline.exchange.suites.converting.unpickle import Read, tensors_of
from mech_pipeline.exchange.suites.converting.written import Named, Parts

_ADAMW, _MUON = "0", "1"
_BY_ADAMW = ("lm_head.weight", "transformer.wte.weight")
_ENDS = {"lm_head.weight": "lm_head.weight", "transformer.wte.weight": "model.embed_tokens.weight"}
_IN_LAYER = {
    "attn.c_q": "self_attn.q_proj",
    "attn.c_k": "self_attn.k_proj",
    "attn.c_v": "self_attn.v_proj",
    "attn.c_proj": "self_attn.o_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_LAYER = re.compile(r"transformer\.h\.(\d+)\.(.+)\.weight")


def converted(model: Path, ranks: Sequence[Path], scratch: Path) -> Parts:
    """Weights, and moments if there are states of the optimizer.

    Raises:
        MechError: a parameter is none of the model that `transformers` has, or the states are not whole.
    """
    if not model.is_file():
        raise MechError(f"{model.parent} has no {model.name}", "fetch it again")
    (_, tensors), *states = tensors_of([model, *ranks], scratch)
    weights = {name.removeprefix("_orig_mod."): tensor.float() for name, tensor in tensors.items()}
    names = {name: transformers_name(name, model) for name in weights}
    parts = {"model": weights}
    if states:
        found = _by_adamw(states, weights, model) | _by_muon(states, weights, model)
        parts |= {part: {name: found[name][index] for name in weights} for index, part in enumerate(ADAM_MOMENTS)}
    return {part: {names[name]: tensor for name, tensor in named.items()} for part, named in parts.items()}


def transformers_name(name: str, model: Path) -> str:
    """A parameter of nanochat as `transformers` calls it.

    Raises:
        MechError: it is of a later nanochat.
    """
    found = _LAYER.fullmatch(name)
    if name in _ENDS:
        return _ENDS[name]
    if found is None or found[2] not in _IN_LAYER:
        raise MechError(
            f"{model.name} has parameter {name}: it is of a nanochat after December 2025, which is not built here",
            "choose a run of the model that `transformers` has",
        )
    return f"model.layers.{found[1]}.{_IN_LAYER[found[2]]}.weight"


def _by_adamw(states: Sequence[Read], weights: Named, model: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Moments of embedding and unembedding, all ranks below each other."""
    found = {}
    for number, name in enumerate(_BY_ADAMW):
        pair = []
        for part in ADAM_MOMENTS:
            key = f"{_ADAMW}/state/{number}/{part}"
            cut = [tensors[key].float() for _, tensors in states if key in tensors]
            joined = torch.cat(cut) if len(cut) == len(states) else None
            if joined is None or joined.shape != weights[name].shape:
                raise MechError(f"states of {model.name} lack {part} of {name}", "fetch all ranks again")
            pair.append(joined)
        found[name] = (pair[0], pair[1])
    return found


def _by_muon(states: Sequence[Read], weights: Named, model: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Momentum of the matrices, from whichever rank owns it."""
    prefix = f"{_MUON}/state/"
    buffers = {
        int(key.removeprefix(prefix).split("/")[0]): tensor.float()
        for _, tensors in states
        for key, tensor in tensors.items()
        if key.startswith(prefix) and key.endswith("/momentum_buffer")
    }
    matrices = [name for name in weights if name not in _BY_ADAMW]
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for numbers in _groups(states[0]):
        sample = next((buffers[number] for number in numbers if number in buffers), torch.empty(0))
        alike = [name for name in matrices if weights[name].numel() == sample.numel()]
        if len(alike) != len(numbers):
            alike = [name for name in matrices if weights[name].shape == sample.shape]
        for number, name in zip(numbers, alike, strict=False):
            if number in buffers and buffers[number].shape == weights[name].shape:
                found[name] = (buffers[number], torch.zeros_like(buffers[number]))
    if missing := [name for name in matrices if name not in found]:
        raise MechError(f"states of {model.name} lack the momentum of {missing[0]}", "fetch all ranks again")
    return found


def _groups(state: Read) -> list[list[int]]:
    """Numbers of the parameters in each of Muon's groups."""
    groups: dict[int, list[int]] = {}
    for key, value in state[0].items():
        if found := re.fullmatch(rf"{_MUON}/param_groups/(\d+)/params/\d+", key):
            groups.setdefault(int(found[1]), []).append(value)
    return [groups[group] for group in sorted(groups)]
