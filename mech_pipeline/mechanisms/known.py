"""What is known of mechanisms and detectors without loading them: names, versions, what their data are made of.

Fingerprints, plans and `mech status` need no more. Loading the mechanisms themselves imports PyTorch, which takes longer
than everything else that those do, so the facts are kept in a file of the user's cache, named by the hash of all source
that they follow from: this package's and the project's files. A file that imports modules of its own, from elsewhere
than the folder, may follow from what no hash here covers: its facts are found anew each time.
"""

import ast
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mech_pipeline.mechanisms.chosen import CHOSEN
from mech_pipeline.spec.fingerprint import fingerprint
from mech_pipeline.spec.model import Model
from mech_pipeline.user_cache import kept_folder, leave

_REGISTRY = "mech_pipeline.mechanisms.registry"
_KEPT_FILES = 20
_COVERED = sys.stdlib_module_names | {
    *("mech_pipeline", "torch", "numpy", "scipy", "jaxtyping", "tokenizers", "transformers", "transformer_lens"),
}
"""What a project's file may import and still be known by its hash."""


@dataclass(frozen=True)
class Facts:
    """What is known of a mechanism or a detector.

    Attributes:
        reads_text: whether its probe data may depend on more than the stored probe.
        unit: of its value or score.
        corrupted: whether it has data to patch with, so that its circuit can be found.
    """

    version: str
    reads_text: bool
    unit: str
    corrupted: bool = False


class _Live(Mapping[str, Facts]):
    """The facts of what is loaded, as it is now."""

    def __init__(self, loaded: Mapping[str, Any]) -> None:
        self._loaded = loaded

    def __getitem__(self, name: str) -> Facts:
        one = self._loaded[name]
        return Facts(one.version, one.reads_text, one.unit, getattr(one, "corrupted", None) is not None)

    def __iter__(self) -> Iterator[str]:
        return iter(self._loaded)

    def __len__(self) -> int:
        return len(self._loaded)


class Known:
    """The facts of all mechanisms and detectors that this process can use."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._read: dict[str, Any] | None = None

    @property
    def mechanisms(self) -> Mapping[str, Facts]:
        """By name.

        Raises:
            MechError: a file of the project cannot be used; it is named, with the line.
        """
        return self._facts("mechanisms")

    @property
    def detectors(self) -> Mapping[str, Facts]:
        """By name."""
        return self._facts("detectors")

    def missing(self, name: str, model: Model) -> str | None:
        """What a model lacks for a mechanism, as a sentence that goes on after its name."""
        if _is_loaded():
            return _loaded_missing(name, model)
        read, key = self._kept(), fingerprint("model", model)
        if key not in read["missing"]:
            read["missing"][key] = {one: _loaded_missing(one, model) for one in read["mechanisms"]}
            _keep(CHOSEN.folder, read)
        sentence: str | None = read["missing"][key][name]
        return sentence

    def _facts(self, kind: str) -> Mapping[str, Facts]:
        if _is_loaded():
            return _live(kind)
        found: Mapping[str, Facts] = self._kept()[kind]
        return found

    def _kept(self) -> dict[str, Any]:
        folder = CHOSEN.folder
        if self._read is None or folder != self._folder:
            self._folder, self._read = folder, _kept_facts(folder) or _found_facts(folder)
        return self._read


KNOWN = Known()


def _is_loaded() -> bool:
    return _REGISTRY in sys.modules


def _live(kind: str) -> Mapping[str, Facts]:
    from mech_pipeline.mechanisms.registry import DETECTORS, MECHANISMS

    return _Live(MECHANISMS.loaded() if kind == "mechanisms" else DETECTORS)


def _loaded_missing(name: str, model: Model) -> str | None:
    from mech_pipeline.mechanisms.registry import MECHANISMS

    return MECHANISMS[name].missing(model)


def _found_facts(folder: Path | None) -> dict[str, Any]:
    """From the mechanisms themselves; kept for the next process."""
    found: dict[str, Any] = {kind: dict(_live(kind)) for kind in ("mechanisms", "detectors")}
    found["missing"] = {}
    _keep(folder, found)
    return found


def _kept_facts(folder: Path | None) -> dict[str, Any] | None:
    """From the file that an earlier process left; none: there is none that can be used."""
    path = _file(folder)
    try:
        read = json.loads(path.read_text()) if path is not None else None
        if read is None:
            return None
        for kind in ("mechanisms", "detectors"):
            read[kind] = {name: Facts(**facts) for name, facts in read[kind].items()}
        return {kind: dict(read[kind]) for kind in ("mechanisms", "detectors", "missing")}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _keep(folder: Path | None, facts: dict[str, Any]) -> None:
    """Leaves them to later processes; whoever cannot write does without."""
    path = _file(folder)
    if path is None:
        return
    plain = {kind: {name: asdict(one) for name, one in facts[kind].items()} for kind in ("mechanisms", "detectors")}
    leave(path, json.dumps(plain | {"missing": facts["missing"]}))
    try:
        for old in sorted(path.parent.iterdir(), key=lambda file: file.stat().st_mtime)[:-_KEPT_FILES]:
            old.unlink(missing_ok=True)
    except OSError:
        return


def _file(folder: Path | None) -> Path | None:
    """Where the facts are kept; none: they follow from more than what can be hashed here."""
    own = sorted(folder.rglob("*.py")) if folder else []
    try:
        contents = [path.read_bytes() for path in own]
        if not all(map(_is_covered, contents)):
            return None
        package = Path(__file__).parents[1]
        ours = [(path, path.read_bytes()) for path in sorted(package.rglob("*.py"))]
    except (OSError, SyntaxError, ValueError):
        return None
    return kept_folder() / "mechanisms" / f"{_sha256([*ours, *zip(own, contents, strict=True)])}.json"


def _sha256(files: Iterable[tuple[Path, bytes]]) -> str:
    digest = hashlib.sha256(sys.version.encode())
    for path, content in files:
        digest.update(f"{path}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def _is_covered(source: bytes) -> bool:
    """Whether a file imports nothing but what comes with this package."""
    for node in ast.walk(ast.parse(source)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
        if any(name.partition(".")[0] not in _COVERED for name in names):
            return False
    return True
