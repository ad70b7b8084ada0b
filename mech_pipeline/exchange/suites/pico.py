"""Pico's decoders: one branch a run, one commit a step, a Fabric state beside the weights.

    on disk    [checkpoints/]step_1000/{config.json, model.safetensors, fabric_state/checkpoint.pt or, of DeepSpeed, checkpoint/}
    on the hub the same files at the root of the commit "Saving Fabric Checkpoint -- Step 1000" of the run's branch

`place` is a folder, or `owner/name@branch`. Commits in the hub's local cache tell no step: name them with
`imported.revisions: {COMMIT: STEP}`, and no network is needed. Source: pico-lm/pico-train, src/checkpointing/training.py.
What lies in the files is in `converting/pico.py`.
"""

import json
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mech_pipeline.errors import MechError
from mech_pipeline.exchange.suites.huggingface import cached_folder, fetched, hub
from mech_pipeline.exchange.suites.layout import CONFIG, Revision, by_step, check_shards, sampled_identity
from mech_pipeline.spec.imported import Imported

FABRIC = "fabric_state/checkpoint.pt"
_SAVED = re.compile(r"Saving (Fabric Checkpoint|HF Model) -- Step (\d+)")
_WANTED = ["*.safetensors", "*.safetensors.index.json", CONFIG, "fabric_state/*"]  # a star is of folders as well


class Pico:
    """See the module."""

    def revisions(self, spec: Imported) -> list[Revision]:
        """What there is, by rising step; the identity of a commit is itself."""
        if (folder := _steps(spec)).is_dir():
            named = by_step((path.parent.name for path in folder.glob(f"*/{CONFIG}")), spec, str(folder))
            return [Revision(step, name, sampled_identity(_files(folder / name), name)) for step, name in named]
        commits = spec.revisions or _listed(spec.place)
        named = by_step(commits, spec.model_copy(update={"revisions": commits}), f"repository {spec.place}")
        return [Revision(step, name, name) for step, name in named]

    def config(self, spec: Imported, name: str) -> bytes:
        """Its own, as the Llama that it is."""
        folder = _found(spec, name)
        if folder is not None and (folder / CONFIG).is_file():
            return llama_config((folder / CONFIG).read_bytes(), spec.place)
        with tempfile.TemporaryDirectory() as made:
            there = fetched(_repository(spec), name, made, [CONFIG]) / CONFIG
            if not there.is_file():
                raise MechError(f"{spec.place} at {name} has no {CONFIG}", "name another commit")
            return llama_config(there.read_bytes(), spec.place)

    @contextmanager
    def opened(self, spec: Imported, name: str) -> Iterator[Path]:
        """A converted copy that is gone afterwards."""
        folder = _found(spec, name)
        weights = folder is not None and list(folder.glob("*.safetensors"))
        if _steps(spec).is_dir() and not weights:
            raise MechError(f"revision {name} of {spec.place} is gone, or has no *.safetensors", "put it back")
        if folder is not None and weights:
            with _converted(spec, name, folder) as made:
                yield made
            return
        with tempfile.TemporaryDirectory() as cache:
            with _converted(spec, name, fetched(_repository(spec), name, cache, _WANTED)) as made:
                yield made


@contextmanager
def _converted(spec: Imported, name: str, folder: Path) -> Iterator[Path]:
    from mech_pipeline.exchange.suites.converting.pico import converted
    from mech_pipeline.exchange.suites.converting.written import written

    check_shards(folder, f"{spec.place} at {name}")
    config = llama_config((folder / CONFIG).read_bytes(), spec.place)
    step = spec.step_of(name)
    with written(lambda scratch: converted(folder, json.loads(config), scratch, step), config) as made:
        yield made


def llama_config(content: bytes, place: str) -> bytes:
    """Pico's config.json as that of the same model in `transformers`.

    Raises:
        MechError: it is not Pico's.
    """
    try:
        pico: dict[str, Any] = json.loads(content)
        fields = {
            "vocab_size": pico["vocab_size"],
            "hidden_size": pico["d_model"],
            "num_hidden_layers": pico["n_layers"],
            "num_attention_heads": pico["attention_n_heads"],
            "num_key_value_heads": pico["attention_n_kv_heads"],
            "intermediate_size": pico["activation_hidden_dim"],
            "max_position_embeddings": pico["max_seq_len"],
            "rms_norm_eps": pico["norm_eps"],
            "rope_parameters": {"rope_type": "default", "rope_theta": float(pico["position_emb_theta"])},
        }
    except (ValueError, KeyError, TypeError) as error:
        raise MechError(f"config.json of {place} is not one of Pico's: {error!r}", "choose another layout") from error
    fixed: dict[str, Any] = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_act": "silu"}
    fixed |= {"tie_word_embeddings": False, "attention_bias": False, "mlp_bias": False}
    return json.dumps(fixed | fields, sort_keys=True).encode()


def _steps(spec: Imported) -> Path:
    place = spec.home / spec.place
    return place / "checkpoints" if (place / "checkpoints").is_dir() else place


def _found(spec: Imported, name: str) -> Path | None:
    """The folder of a revision: on disk, or in the hub's cache."""
    if (folder := _steps(spec)).is_dir():
        return folder / name
    snapshot = cached_folder(_repository(spec)) / "snapshots" / name
    return snapshot if snapshot.is_dir() else None


def _files(folder: Path) -> list[Path]:
    kept = (
        *folder.glob("*.safetensors"),
        folder / CONFIG,
        folder / FABRIC,
        *folder.glob("fabric_state/checkpoint/*.pt"),
    )
    return [path for path in kept if path.is_file()]


def _repository(spec: Imported) -> str:
    return spec.place.partition("@")[0]


def _listed(place: str) -> dict[str, int]:
    """Steps by commit: the one with the Fabric state, or the one with the weights where there is no such."""
    repository, _, branch = place.partition("@")
    commits = hub(place, lambda api: api.list_repo_commits(repository, revision=branch or None))
    titles = [(each.commit_id, each.title) for each in commits]
    found: dict[int, tuple[bool, str]] = {}
    for commit, title in reversed(titles):  # oldest first: what was saved again replaces
        if said := _SAVED.search(title):
            fabric, step = said[1].startswith("Fabric"), int(said[2])
            if fabric or not found.get(step, (False,))[0]:
                found[step] = (fabric, commit)
    return {commit: step for step, (_, commit) in found.items()}
