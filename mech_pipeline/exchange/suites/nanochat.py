"""Checkpoints of nanochat: `model_000100.pt`, `meta_000100.json` and `optim_000100_rank0.pt` … in one folder.

The model is that of nanochat until December 2025, which `transformers` has as well; later ones (value embeddings, mixed
residual streams, short windows) are refused by the first of their parameters. What lies in the files is in
`converting/nanochat.py`. Source: karpathy/nanochat, nanochat/checkpoint_manager.py and gpt.py.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mech_pipeline.errors import MechError
from mech_pipeline.exchange.suites.layout import Revision, by_step, sampled_identity
from mech_pipeline.spec.imported import Imported

_MODEL = re.compile(r"model_(\d+)\.pt")
_EPSILON, _ROTATION, _CAP, _PADDED_TO = 1.1920929e-07, 10_000.0, 15.0, 64
"""Of fp32, which `F.rms_norm` takes where none is given; gpt.py has the others as numbers."""


class NanoChat:
    """See the module."""

    def revisions(self, spec: Imported) -> list[Revision]:
        """What there is, by rising step."""
        place = spec.home / spec.place
        if not place.is_dir():
            raise MechError(f"imported.place: there is no folder {place}", "name the folder with model_….pt in it")
        named = by_step((path.name for path in place.iterdir() if _MODEL.fullmatch(path.name)), spec, str(place))
        return [Revision(step, name, sampled_identity(_files(place, name), name)) for step, name in named]

    def config(self, spec: Imported, name: str) -> bytes:
        """From meta_….json."""
        path = _meta(spec.home / spec.place, name)
        try:
            return nanochat_config(json.loads(path.read_bytes())["model_config"], str(path))
        except FileNotFoundError as error:
            raise MechError(f"{path.parent} has no {path.name}", "fetch it again") from error
        except (ValueError, KeyError, TypeError) as error:
            raise MechError(f"{path} is none of nanochat's: {error!r}"[:300], "fetch it again") from error

    @contextmanager
    def opened(self, spec: Imported, name: str) -> Iterator[Path]:
        """A converted copy that is gone afterwards."""
        from mech_pipeline.exchange.suites.converting.nanochat import converted
        from mech_pipeline.exchange.suites.converting.written import written

        place, config, step = spec.home / spec.place, self.config(spec, name), spec.step_of(name)
        said = json.loads(_meta(place, name).read_bytes()).get("step")
        if step is not None and said != step:
            raise MechError(f"{_meta(place, name)} is of step {said}, expected {step}", "fetch it again")
        with written(lambda scratch: converted(place / name, _ranks(place, name), scratch), config) as made:
            yield made


def _number(name: str) -> str:
    found = _MODEL.fullmatch(name)
    assert found is not None, "only such names are revisions"
    return found[1]


def _meta(place: Path, name: str) -> Path:
    return place / f"meta_{_number(name)}.json"


def _ranks(place: Path, name: str) -> list[Path]:
    """The optimizer's states of all ranks, in their order.

    Raises:
        MechError: one in between is missing.
    """
    known = {int(path.stem.rpartition("rank")[2]): path for path in place.glob(f"optim_{_number(name)}_rank*.pt")}
    if missing := sorted(set(range(max(known, default=-1) + 1)) - set(known)):
        raise MechError(f"{place} lacks optim_{_number(name)}_rank{missing[0]}.pt", "fetch it again")
    return [known[rank] for rank in sorted(known)]


def _files(place: Path, name: str) -> list[Path]:
    return [
        path
        for path in (place / name, _meta(place, name), *place.glob(f"optim_{_number(name)}_rank*.pt"))
        if path.is_file()
    ]


def nanochat_config(model: dict[str, Any], place: str) -> bytes:
    """`model_config` of meta_….json as the config.json of the same model in `transformers`.

    Raises:
        MechError: it has short windows, which `transformers` has not.
        KeyError: a field is missing.
    """
    if set(str(model.get("window_pattern", "L")).upper()) != {"L"}:
        raise MechError(
            f"{place}: window_pattern is {model['window_pattern']}, which is not built here", "choose another run"
        )
    fields = {
        "model_type": "nanochat",
        "architectures": ["NanoChatForCausalLM"],
        "vocab_size": -(-model["vocab_size"] // _PADDED_TO) * _PADDED_TO,
        "hidden_size": model["n_embd"],
        "intermediate_size": 4 * model["n_embd"],
        "num_hidden_layers": model["n_layer"],
        "num_attention_heads": model["n_head"],
        "num_key_value_heads": model["n_kv_head"],
        "max_position_embeddings": model["sequence_len"],
        "hidden_act": "relu2",
        "rms_norm_eps": _EPSILON,
        "final_logit_softcapping": _CAP,
        "rope_parameters": {"rope_type": "default", "rope_theta": _ROTATION},
        "tie_word_embeddings": False,
        "attention_bias": False,
    }
    return json.dumps(fields, sort_keys=True).encode()
