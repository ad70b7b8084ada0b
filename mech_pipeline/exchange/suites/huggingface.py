"""A repository of the Hugging Face Hub with a revision (branch, tag or commit) per step: Pythia, PolyPythias, CRFM …

What is in the hub's local cache is read there (`models--<owner>--<name>/refs/<revision>` names a commit, whose files are in
`snapshots/<commit>/`), so it works without a network. Otherwise revisions are listed by the hub, and each is fetched into a
folder that is gone when it has been read: never more than one is on disk. Weights are taken from safetensors where a revision
has them, else from `pytorch_model.bin` (Stanford CRFM's GPT-2s), which is read in a process of its own.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from mech_pipeline.errors import MechError
from mech_pipeline.exchange.suites.layout import BIN, CONFIG, Revision, by_step
from mech_pipeline.exchange.suites.readable import readable
from mech_pipeline.spec.imported import Imported

T = TypeVar("T")
_WANTED = ["*.safetensors", "*.safetensors.index.json", CONFIG]
_OLDER = ["pytorch_model*.bin", f"{BIN}.index.json", CONFIG]


class HuggingFace:
    """See the module."""

    def revisions(self, spec: Imported) -> list[Revision]:
        """What there is, by rising step; the identity of a revision is its commit."""
        commits = _cached(spec) or _listed(spec.place)
        commits |= {name: name for name in spec.revisions if name not in commits}  # commits name themselves
        named = by_step(commits, spec, f"repository {spec.place}")
        return [Revision(step, name, commits[name]) for step, name in named]

    def config(self, spec: Imported, name: str) -> bytes:
        """That of the snapshot in the cache, or fetched alone."""
        cached = _snapshot(spec, name) / CONFIG
        if cached.is_file():
            return cached.read_bytes()
        with tempfile.TemporaryDirectory() as made:
            return (fetched(spec.place, name, made, [CONFIG]) / CONFIG).read_bytes()

    @contextmanager
    def opened(self, spec: Imported, name: str) -> Iterator[Path]:
        """The snapshot in the cache, or one that is fetched and removed."""
        snapshot, what = _snapshot(spec, name), f"{spec.place} at {name}"
        if snapshot.is_dir() and (list(snapshot.glob("*.safetensors")) or list(snapshot.glob(f"{BIN}*"))):
            with readable(snapshot, what) as folder:
                yield folder
            return
        with tempfile.TemporaryDirectory() as made:
            there = fetched(spec.place, name, made, _WANTED)
            if not list(there.glob("*.safetensors")):
                there = fetched(spec.place, name, made, _OLDER)
            with readable(there, what) as folder:
                yield folder


def _folder(spec: Imported) -> Path:
    """The repository in the cache; `place` may also be that folder itself."""
    own = spec.home / spec.place
    return own if (own / "refs").is_dir() else cached_folder(spec.place)


def cached_folder(repository: str) -> Path:
    """Where the hub's local cache has a repository, if it has it."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"


def _snapshot(spec: Imported, name: str) -> Path:
    """Where the cache has a revision, if it has it."""
    return _folder(spec) / "snapshots" / _cached(spec).get(name, name)


def _cached(spec: Imported) -> dict[str, str]:
    """Commits by revision, as the cache has them."""
    refs = _folder(spec) / "refs"
    return {path.relative_to(refs).as_posix(): path.read_text().strip() for path in refs.rglob("*") if path.is_file()}


def _listed(place: str) -> dict[str, str]:
    refs = hub(place, lambda api: api.list_repo_refs(place))
    return {ref.name: ref.target_commit for ref in [*refs.branches, *refs.tags]}


def hub(place: str, ask: Callable[[Any], T]) -> T:
    """What the hub says, asked through `huggingface_hub`.

    Raises:
        MechError: it does not answer.
    """
    import huggingface_hub

    try:
        return ask(huggingface_hub)
    except Exception as error:  # whatever the hub, or a network without one, raises
        raise MechError(
            f"repository {place} is not in the cache and cannot be listed by the hub: {' '.join(str(error).split())[:200]}",
            "check imported.place, or fetch its revisions where there is a network",
        ) from error


def fetched(repository: str, revision: str, cache: str, wanted: list[str]) -> Path:
    """A snapshot with the files that fit.

    Raises:
        MechError: it cannot be had.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=wanted, cache_dir=cache))
    except Exception as error:
        raise MechError(
            f"revision {revision} of {repository} cannot be had from the hub: {' '.join(str(error).split())[:200]}",
            "check the network, and run the same command again",
        ) from error
