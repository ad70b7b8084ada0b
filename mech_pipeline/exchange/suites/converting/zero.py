"""DeepSpeed's files of a state that ranks share (ZeRO 1 and 2), joined.

    mp_rank_00_model_states.pt                            module: weights; param_shapes: names and shapes by group
    [bf16_]zero_pp_rank_<r>_mp_rank_00_optim_states.pt    each rank's part of the fp32 masters and of Adam's moments

Of a group, the parts of all ranks one after another are its parameters one after another, with padding at the end. Pickles are
read in a process of their own (`unpickle.py`). Source: DeepSpeed's `zero_to_fp32.py`.
"""

import re
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mech_pipeline.errors import MechError
from mech_pipeline.exchange.suites.converting.torch_optimizer import ADAM_MOMENTS
from mech_pipeline.exchange.suites.converting.unpickle import Read, tensors_of
from mech_pipeline.exchange.suites.converting.written import Named, Parts
from mech_pipeline.exchange.suites.layout import DEEPSPEED_MODEL as MODEL

_RANK = re.compile(r"(?:bf16_)?zero_pp_rank_(\d+)_mp_rank_00_optim_states\.pt")
_PARTS = ("model", *ADAM_MOMENTS)


def read_ranks(folder: Path, scratch: Path) -> list[Read]:
    """The model's file, then those of the ranks, in order; there may be none.

    Raises:
        MechError: one is missing, or cannot be read.
    """
    if not (folder / MODEL).is_file():
        raise MechError(f"{folder.name} has no {MODEL}", "fetch the revision again")
    ranks = {int(found[1]): path for path in folder.glob("*.pt") if (found := _RANK.fullmatch(path.name))}
    if missing := sorted(set(range(max(ranks, default=-1) + 1)) - set(ranks)):
        raise MechError(f"{folder.name} lacks the states of rank {missing[0]}", "fetch the revision again")
    return tensors_of([folder / MODEL, *(ranks[rank] for rank in sorted(ranks))], scratch)


def joined(folder: Path, plain: dict[str, Any], ranks: Sequence[Named]) -> Parts:
    """The parts of all ranks, joined and cut, by the names that the model has there.

    Args:
        plain: numbers and texts of the model's file.

    Raises:
        MechError: a part is missing, or smaller than its parameters.
    """
    shapes = _param_shapes(plain)
    if not shapes:
        raise MechError(f"{folder.name}/{MODEL} has no param_shapes", "fetch the revision again")
    found: dict[str, Named] = {}
    for part in _PARTS:
        for group, parameters in enumerate(shapes):
            flat = torch.cat([_flat(tensors, part, group, folder) for tensors in ranks])
            found.setdefault(part, {}).update(cut_flat(flat, parameters, f"{folder.name}: group {group} of {part}"))
    return found


def _param_shapes(plain: dict[str, Any]) -> list[dict[str, list[int]]]:
    """Names and shapes of each group's parameters, in order."""
    groups: dict[int, dict[str, list[int]]] = {}
    for name, shape in plain.items():
        if name.startswith("param_shapes/"):
            _, group, parameter = name.split("/", 2)
            groups.setdefault(int(group), {})[parameter] = shape
    return [groups[group] for group in sorted(groups)]


def _flat(tensors: Named, part: str, group: int, folder: Path) -> Tensor:
    """One rank's part of a group."""
    base = "optimizer_state_dict"
    names = (
        [f"{base}/single_partition_of_fp32_groups/{group}"]
        if part == "model"
        else [f"{base}/base_optimizer_state/state/{group}/{part}", f"{base}/base_optimizer_state/{group}/{part}"]
    )
    for name in names:
        if name in tensors:
            return tensors[name].flatten().float()
    raise MechError(f"{folder.name} has no {names[0]}", "it is of another version of DeepSpeed, or not whole")


def cut_flat(flat: Tensor, parameters: dict[str, list[int]], what: str) -> Named:
    """A group's parameters out of one vector; what is left is padding."""
    named, begin = Named(), 0
    for name, shape in parameters.items():
        named[name] = flat[begin : begin + prod(shape)].clone()
        begin += prod(shape)
        if begin > flat.numel():
            raise MechError(
                f"{what} has {flat.numel()} numbers, its parameters ask for {begin} and more", "fetch it again"
            )
        named[name] = named[name].reshape(shape)
    return named
