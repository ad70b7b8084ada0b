"""Unsharded checkpoints of OLMo-2: a folder `step1000-unsharded/` per step, with config.yaml, model.pt, optim.pt and train.pt.

What lies in the files is in `converting/olmo.py`. Source: allenai/OLMo, olmo/checkpoint.py (FullCheckpointer) and
scripts/convert_olmo2_to_hf.py.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from mech_pipeline.errors import MechError
from mech_pipeline.exchange.suites.layout import Revision, by_step, sampled_identity
from mech_pipeline.spec.imported import Imported

MODEL, OPTIMIZER, PROGRESS, SETTINGS = "model.pt", "optim.pt", "train.pt", "config.yaml"


class Olmo:
    """See the module."""

    def revisions(self, spec: Imported) -> list[Revision]:
        """What there is, by rising step."""
        place = spec.home / spec.place
        if not place.is_dir():
            raise MechError(f"imported.place: there is no folder {place}", "name the folder with step…-unsharded in it")
        named = by_step((path.parent.name for path in place.glob(f"*/{MODEL}")), spec, str(place))
        return [Revision(step, name, sampled_identity(_files(place / name), name)) for step, name in named]

    def config(self, spec: Imported, name: str) -> bytes:
        """From the model's section of config.yaml."""
        path = spec.home / spec.place / name / SETTINGS
        if not path.is_file():
            raise MechError(f"{path.parent} has no {SETTINGS}", "fetch the revision again")
        try:
            return olmo2_config(yaml.safe_load(path.read_text())["model"], str(path))
        except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
            raise MechError(f"{path} is none of OLMo-2's: {error!r}"[:300], "fetch the revision again") from error

    @contextmanager
    def opened(self, spec: Imported, name: str) -> Iterator[Path]:
        """A converted copy that is gone afterwards."""
        from mech_pipeline.exchange.suites.converting.olmo import converted
        from mech_pipeline.exchange.suites.converting.written import written

        folder, config, step = spec.home / spec.place / name, self.config(spec, name), spec.step_of(name)
        files = [folder / each for each in (MODEL, OPTIMIZER, PROGRESS)]
        with written(lambda scratch: converted(files, json.loads(config), scratch, step), config) as made:
            yield made


def _files(folder: Path) -> list[Path]:
    return [path for each in (MODEL, OPTIMIZER, PROGRESS, SETTINGS) if (path := folder / each).is_file()]


def olmo2_config(model: dict[str, Any], place: str) -> bytes:
    """The section `model` of config.yaml as the config.json of the same model in `transformers`.

    Raises:
        MechError: it is of an OLMo before the second.
        KeyError: a field is missing.
    """
    needed = {"attention_layer_norm": True, "norm_after": True, "layer_norm_type": "rms", "activation_type": "swiglu"}
    if wrong := [name for name, value in needed.items() if model.get(name, value) != value] or [
        name for name in ("attention_layer_norm", "norm_after") if not model.get(name)
    ]:
        raise MechError(f"{place}: {wrong[0]} is {model.get(wrong[0])}: no OLMo-2", "choose a suite of OLMo-2")
    inner = model.get("mlp_hidden_size") or model["d_model"] * model["mlp_ratio"]
    shared = 1 if model.get("multi_query_attention") else model["n_heads"]
    fields = {
        "model_type": "olmo2",
        "architectures": ["Olmo2ForCausalLM"],
        "vocab_size": model.get("embedding_size") or model["vocab_size"],
        "hidden_size": model["d_model"],
        "intermediate_size": inner // 2,
        "num_hidden_layers": model["n_layers"],
        "num_attention_heads": model["n_heads"],
        "num_key_value_heads": model.get("n_kv_heads") or shared,
        "max_position_embeddings": model["max_sequence_length"],
        "rms_norm_eps": model.get("layer_norm_eps", 1e-5),
        "rope_parameters": {"rope_type": "default", "rope_theta": float(model.get("rope_theta", 10_000))},
        "tie_word_embeddings": bool(model.get("weight_tying", False)),
        "hidden_act": "silu",
        "attention_bias": False,
    }
    return json.dumps(fields, sort_keys=True).encode()
