"""A repository of the Hugging Face Hub with a revision (branch, tag or commit) per step: Pythia, PolyPythias, CRFM, OLMo …

What is in the hub's local cache is read there (`models--<owner>--<name>/refs/<revision>` names a commit, whose files are in
`snapshots/<commit>/`), so it works without a network. Otherwise revisions are listed by the hub, and each is fetched into a
folder that is gone when it has been read: never more than one is on disk.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mech_pipeline.errors import MechError
from mech_pipeline.exchange.suites.folder import CONFIG
from mech_pipeline.exchange.suites.layout import Revision, by_step, check_shards
from mech_pipeline.spec.imported import Imported

_WANTED = ["*.safetensors", "*.safetensors.index.json", CONFIG]


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
            return (_fetched(spec.place, name, made, [CONFIG]) / CONFIG).read_bytes()

    @contextmanager
    def opened(self, spec: Imported, name: str) -> Iterator[Path]:
        """The snapshot in the cache, or one that is fetched and removed."""
        snapshot = _snapshot(spec, name)
        if snapshot.is_dir() and list(snapshot.glob("*.safetensors")):
            check_shards(snapshot, f"{spec.place} at {name}")
            yield snapshot
            return
        with tempfile.TemporaryDirectory() as made:
            fetched = _fetched(spec.place, name, made, _WANTED)
            check_shards(fetched, f"{spec.place} at {name}")
            yield fetched


def _folder(spec: Imported) -> Path:
    """The repository in the cache; `place` may also be that folder itself."""
    own = spec.home / spec.place
    if (own / "refs").is_dir():
        return own
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE) / f"models--{spec.place.replace('/', '--')}"


def _snapshot(spec: Imported, name: str) -> Path:
    """Where the cache has a revision, if it has it."""
    return _folder(spec) / "snapshots" / _cached(spec).get(name, name)


def _cached(spec: Imported) -> dict[str, str]:
    """Commits by revision, as the cache has them."""
    refs = _folder(spec) / "refs"
    return {path.relative_to(refs).as_posix(): path.read_text().strip() for path in refs.rglob("*") if path.is_file()}


def _listed(place: str) -> dict[str, str]:
    from huggingface_hub import list_repo_refs

    try:
        refs = list_repo_refs(place)
    except Exception as error:  # whatever the hub, or a network without one, raises
        raise MechError(
            f"repository {place} is not in the cache and cannot be listed by the hub: {' '.join(str(error).split())[:200]}",
            "check imported.place, or fetch its revisions where there is a network",
        ) from error
    return {ref.name: ref.target_commit for ref in [*refs.branches, *refs.tags]}


def _fetched(place: str, revision: str, cache: str, wanted: list[str]) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(place, revision=revision, allow_patterns=wanted, cache_dir=cache))
    except Exception as error:
        raise MechError(
            f"revision {revision} of {place} cannot be had from the hub: {' '.join(str(error).split())[:200]}",
            "check the network, and run the same command again",
        ) from error
