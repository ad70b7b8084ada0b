"""Native checkpoints of GPT-NeoX (Pythia's `neox-ckpt-…`): `global_step1000/` with DeepSpeed's files, ZeRO stage 0 or 1.

    mp_rank_00_model_states.pt                            module: weights (fp16); param_shapes: names and shapes by group (ZeRO)
    zero_pp_rank_<r>_mp_rank_00_optim_states.pt           ZeRO 1: each rank's part of the fp32 masters and of moments (`zero.py`)
    in mp_rank_00_model_states.pt, optimizer/…            stage 0: fp32_groups_flat and moments of whole groups

There are two groups, with and without weight decay; in stage 0 their order is that of `module`: matrices and embeddings, then
biases and norms. The fp32 masters are taken, since fp16 cannot carry the first updates. Names become those of `transformers`; the
fused query-key-value matrix lies alike in both.

A `config.json` of `transformers` must lie beside the steps. Source: DeepSpeed's `zero_to_fp32.py` and GPT-NeoX's
`tools/ckpts/convert_neox_to_hf.py`; the fixtures of the tests are of these layouts, no file of EleutherAI was read here.
"""

import re
from pathlib import Path
from typing import Any

from torch import Tensor

from mech_pipeline.errors import MechError
from mech_pipeline.exchange.suites.converting.torch_optimizer import ADAM_MOMENTS
from mech_pipeline.exchange.suites.converting.written import Named, Parts
from mech_pipeline.exchange.suites.converting.zero import cut_flat, joined, read_ranks
from mech_pipeline.exchange.suites.layout import DEEPSPEED_MODEL as MODEL

_LAYER = re.compile(r"(?:module\.)?sequential\.(\d+)\.(.+)")


def converted(folder: Path, scratch: Path, step: int | None = None) -> Parts:
    """Weights (`model`), and moments (`exp_avg`, `exp_avg_sq`) if they are there, by the names of `transformers`.

    Args:
        step: that the folder's name tells: moments of more updates than that are of another step.

    Raises:
        MechError: a file is missing, cannot be read, or does not hold what the others tell of.
    """
    (plain, tensors), *others = read_ranks(folder, scratch)
    for place, (said, _) in enumerate([(plain, tensors), *others]):
        _check_step(said, step, folder, "the model's file" if place == 0 else f"rank {place - 1}")
    parts = joined(folder, plain, [each for _, each in others]) if others else _of_one(tensors, folder)
    layers = _layers(tensors)
    return {
        part: {transformers_name(name, layers): tensor for name, tensor in named.items()}
        for part, named in parts.items()
    }


def _check_step(said: dict[str, Any], step: int | None, folder: Path, what: str) -> None:
    """That the model and the moments are of the step that they are said to be of; skipped updates make Adam's count smaller."""
    if step is None:
        return
    counts = {
        name: value for name, value in said.items() if name.split("/")[-1] in ("step", "iteration", "global_steps")
    }
    for name, value in counts.items():
        adam = name.endswith("/step")
        if isinstance(value, int | float) and (value > step if adam else value != step):
            raise MechError(
                f"{folder.name}: {what} is of another step, its {name} is {value}", "fetch the revision again"
            )


def _of_one(tensors: Named, folder: Path) -> Parts:
    """Stage 0: whole groups in the model's own file, or weights alone."""
    module = {name.removeprefix("module/"): t for name, t in tensors.items() if name.startswith("module/")}
    module = {name: t for name, t in module.items() if not name.endswith(_BUFFERS)}
    if not module:
        raise MechError(f"{folder.name}/{MODEL} has no module", "it is not whole, or of a pipeline-parallel run")
    groups = [{n: list(t.shape) for n, t in module.items() if _decays(n, t) == decays} for decays in (True, False)]
    flats = {
        "model": [tensors.get(f"optimizer/fp32_groups_flat/{group}") for group in range(2)],
        **{
            part: [tensors.get(f"optimizer/optimizer_state_dict/state/{group}/{part}") for group in range(2)]
            for part in ADAM_MOMENTS
        },
    }
    found: dict[str, Named] = {"model": {name: tensor.float() for name, tensor in module.items()}}
    for part, whole in flats.items():
        known = [each for each in whole if each is not None]
        if len(known) < len(groups):
            continue
        cut = [
            cut_flat(flat.flatten().float(), group, f"{folder.name}: {part}")
            for flat, group in zip(known, groups, strict=True)
        ]
        found[part] = cut[0] | cut[1]
    return found


_BUFFERS = ("rotary_emb.inv_freq", "masked_bias", "attention.bias")


def _decays(name: str, tensor: Tensor) -> bool:
    """Whether a parameter is in the group with weight decay: matrices and embeddings."""
    return tensor.dim() > 1 and not name.endswith("bias")


def _layers(tensors: Named) -> int:
    """Transformer blocks of the module."""
    places = {
        int(found[1])
        for name in tensors
        if (found := _LAYER.fullmatch(name.removeprefix("module/"))) and "attention." in found[2]
    }
    return len(places)


def transformers_name(name: str, layers: int) -> str:
    """A parameter of NeoX's sequential module as `transformers` calls it.

    >>> transformers_name("sequential.0.word_embeddings.weight", 6), transformers_name("sequential.2.mlp.dense_h_to_4h.bias", 6)
    ('gpt_neox.embed_in.weight', 'gpt_neox.layers.0.mlp.dense_h_to_4h.bias')
    >>> transformers_name("sequential.9.norm.weight", 6), transformers_name("sequential.10.final_linear.weight", 6)
    ('gpt_neox.final_layer_norm.weight', 'lm_head.weight')
    """
    found = _LAYER.fullmatch(name)
    if found is None:
        raise MechError(f"parameter {name} is none of GPT-NeoX's", "choose another layout")
    place, rest = int(found[1]), found[2]
    if place == 0:
        return rest.replace("word_embeddings", "gpt_neox.embed_in")
    if rest.startswith("norm."):
        return f"gpt_neox.final_layer_{rest}"
    if rest.startswith("final_linear."):
        return rest.replace("final_linear", "lm_head")
    if not 2 <= place < layers + 2:
        raise MechError(f"parameter {name} is none of a model of {layers} layers", "choose another layout")
    return f"gpt_neox.layers.{place - 2}.{rest}"
