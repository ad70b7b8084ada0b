"""Checkpoints of `transformers` that a run starts from: where they are, and what they hold."""

import hashlib
import json
from functools import lru_cache
from pathlib import Path

from mech_pipeline.errors import MechError
from mech_pipeline.spec.fingerprint import file_sha256
from mech_pipeline.system_errors import in_words

_USUAL = (("layer_norm_epsilon", 1e-5), ("scale_attn_weights", True), ("scale_attn_by_inverse_layer_idx", False))


def checkpoint_folder(source: str, home: Path | None = None) -> Path:
    """The folder with config.json and *.safetensors; a hub name is downloaded to the hub's own cache.

    Args:
        home: folder that a relative name begins at; default: the current one.

    Raises:
        MechError: it is neither a folder with both nor a name the hub knows.
    """
    folder = (home or Path.cwd()) / source
    if not folder.is_dir():
        folder = _downloaded(source)
    missing = [what for what in ("config.json", "*.safetensors") if not list(folder.glob(what))]
    if missing:
        raise MechError(
            f"checkpoint {source} has no {' and no '.join(missing)}",
            "save it with `save_pretrained(folder)`; files in pickle format are never read",
        )
    return folder


def initial_sha256(source: str, home: Path | None = None) -> str:
    """SHA-256 of the configuration and weights of a checkpoint."""
    folder = checkpoint_folder(source, home)
    files = [folder / "config.json", *sorted(folder.glob("*.safetensors"))]
    try:
        return _sha256(tuple((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files))
    except OSError as error:
        raise in_words(error) or error from error


@lru_cache(maxsize=16)
def _sha256(files: tuple[tuple[str, int, int], ...]) -> str:
    digest = hashlib.sha256(b"" if _plain(Path(files[0][0])) else b"config.json is followed")
    for name, size, _ in files:
        digest.update(f"{Path(name).name}\0{size}\0".encode())
        digest.update(bytes.fromhex(file_sha256(Path(name))))
    return digest.hexdigest()


def _plain(path: Path) -> bool:
    """Whether the configuration is a GPT-2 as first published, which alone was loaded rightly by earlier versions: what
    they made of any other is made again.
    """
    try:
        config = json.loads(path.read_bytes())
        return config["model_type"] == "gpt2" and all(config.get(name, usual) == usual for name, usual in _USUAL)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


def _downloaded(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=["*.safetensors", "config.json"]))
    except Exception as error:
        raise MechError(
            f"checkpoint {name!r} is no folder here and cannot be had from the hub: {' '.join(str(error).split())[:200]}",
            "check model.init_from, or the network",
        ) from error
