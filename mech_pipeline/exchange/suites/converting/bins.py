"""`pytorch_model.bin`, whole or in shards: the weights that `transformers` wrote before safetensors (Stanford CRFM's GPT-2s).

Moments are not in them. Buffers (causal masks, rotary frequencies) are left out: they follow from the configuration.
"""

import json
import re
from pathlib import Path

from mech_pipeline.errors import MechError
from mech_pipeline.exchange.suites.converting.unpickle import tensors_of
from mech_pipeline.exchange.suites.converting.written import Named, Parts
from mech_pipeline.exchange.suites.layout import BIN

_BUFFER = re.compile(r"(?:.*\.)?(?:attn|attention)\.(?:bias|masked_bias|rotary_emb\.inv_freq)")


def converted(folder: Path, scratch: Path, place: str) -> Parts:
    """The weights of all shards.

    Raises:
        MechError: a shard is missing, or cannot be read.
    """
    index = folder / f"{BIN}.index.json"
    names = sorted(set(json.loads(index.read_bytes())["weight_map"].values())) if index.is_file() else [BIN]
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise MechError(f"{place}: shard {missing[0]} is missing", "fetch the revision again")
    named: Named = {}
    for _, tensors in tensors_of([folder / name for name in names], scratch):
        named |= {name: tensor for name, tensor in tensors.items() if not _BUFFER.fullmatch(name)}
    return {"model": named}
