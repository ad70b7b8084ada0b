"""What a bundle holds, and whether it still does.

    bundle.json     format, version, runs, every other file with size and SHA-256, and a hash chain over the states of each run
    SHA256SUMS      the same hashes and that of bundle.json, for `sha256sum --check SHA256SUMS`

    chain of state k = SHA-256(chain of state k − 1, step, data version of the state, SHA-256 of its file)

The chain begins with the run's fingerprint. Who keeps its last link alone can tell later whether any state, or their
order, was exchanged, even together with the manifest.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from mech_pipeline.errors import MechError
from mech_pipeline.pipeline.checkpoints import POINTER
from mech_pipeline.progress import Report, ignore_progress
from mech_pipeline.spec.fingerprint import file_sha256

FORMAT, VERSION = "mech-pipeline bundle", 1
MANIFEST, SUMS = "bundle.json", "SHA256SUMS"
_CHUNK = 1 << 22
_NAMED = 5
AGAIN = "copy the bundle again from where it was made"


@dataclass(frozen=True)
class File:
    """A file of a bundle."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Link:
    """One state of a run in its chain."""

    step: int
    data_version: str
    sha256: str
    chain: str


@dataclass(frozen=True)
class Run:
    """A run of a bundle: its identity, and the chain of its states."""

    run: str
    fingerprint: str
    status: str
    states: tuple[Link, ...]


@dataclass(frozen=True)
class Manifest:
    """The content of bundle.json."""

    experiment: str
    made_by: str
    licence: str
    left_out: tuple[str, ...]
    runs: tuple[Run, ...]
    files: tuple[File, ...]

    @property
    def elsewhere(self) -> int:
        """Runs whose states are named here and lie elsewhere."""
        pointers = [PurePosixPath(file.name) for file in self.files if file.name.endswith(f"/{POINTER}")]
        return len({part for path in pointers for part in path.parts if part.startswith("run=")})

    def content(self) -> bytes:
        """As the file has it."""
        return json.dumps({"format": FORMAT, "version": VERSION} | asdict(self), indent=1).encode() + b"\n"


def chained(fingerprint: str, states: Iterable[tuple[int, str, str]]) -> tuple[Link, ...]:
    """The chain of a run's states.

    Args:
        states: step, data version and SHA-256 of the file, by rising step.
    """
    links, before = list[Link](), fingerprint
    for step, version, sha256 in states:
        before = hashlib.sha256(f"{before}:{step}:{version}:{sha256}".encode()).hexdigest()
        links.append(Link(step, version, sha256, before))
    return tuple(links)


def described_files(folder: Path) -> tuple[File, ...]:
    """Every file of a folder, by name."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return tuple(File(p.relative_to(folder).as_posix(), p.stat().st_size, file_sha256(p)) for p in paths)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes both files."""
    (folder / MANIFEST).write_bytes(manifest.content())
    (folder / SUMS).write_bytes(_sums(manifest))


def _sums(manifest: Manifest) -> bytes:
    own = hashlib.sha256(manifest.content()).hexdigest()
    lines = [f"{file.sha256}  {file.name}" for file in manifest.files] + [f"{own}  {MANIFEST}"]
    return "\n".join(lines).encode() + b"\n"


def read_manifest(folder: Path) -> Manifest:
    """What a folder says that it holds.

    Raises:
        MechError: it is no bundle, of a newer version, or its manifest is damaged.
    """
    try:
        content = (folder / MANIFEST).read_bytes()
    except FileNotFoundError as error:
        whole = folder.is_dir() and any(folder.iterdir())
        problem = (
            f"{folder} has no {MANIFEST}: no bundle, or one that was copied in part"
            if whole
            else f"there is no bundle in {folder}"
        )
        raise MechError(problem, "name the folder that `mech export` wrote") from error
    try:
        said = json.loads(content)
        if said["format"] != FORMAT:
            raise ValueError(f"its format is {said['format']!r}")
        version = int(said["version"])
    except (ValueError, KeyError, TypeError) as error:
        raise MechError(f"{folder / MANIFEST} is damaged: {error}", AGAIN) from error
    if version > VERSION:
        raise MechError(
            f"bundle {folder} has version {version}, this program reads up to {VERSION}",
            "install a newer mech-pipeline",
        )
    try:
        manifest = _manifest(said)
    except (KeyError, TypeError) as error:
        raise MechError(f"{folder / MANIFEST} is damaged: {error} is not as it was written", AGAIN) from error
    if outside := [file.name for file in manifest.files if not _inside(file.name)]:
        raise MechError(f"bundle {folder} names {outside[0]}, which lies outside of it", "use no bundle of that origin")
    if manifest.content() != content:
        raise MechError(f"{folder / MANIFEST} is damaged: it is not as it was written", AGAIN)
    return manifest


def _inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\\" not in name


def _manifest(said: dict[str, Any]) -> Manifest:
    runs = (Run(**run | {"states": tuple(Link(**link) for link in run["states"])}) for run in said["runs"])
    files = (File(**file) for file in said["files"])
    named = {name: said[name] for name in ("experiment", "made_by", "licence")}
    return Manifest(**named, left_out=tuple(said["left_out"]), runs=tuple(runs), files=tuple(files))


def faults(folder: Path, manifest: Manifest, report: Report = ignore_progress) -> list[str]:
    """What is not as it was written, a sentence each; sizes first, since they cost nothing.

    Args:
        report: called with the number of files read.
    """
    found = [said for file in manifest.files if (said := _by_size(folder, file))]
    if not found:
        for done, file in enumerate(manifest.files, start=1):
            if file_sha256(folder / file.name) != file.sha256:
                found.append(f"{file.name} is not what was written (SHA-256)")
            report(done)
    sums = folder / SUMS
    if not sums.is_file():
        found.append(f"{SUMS} is missing")
    elif sums.read_bytes() != _sums(manifest):
        found.append(f"{SUMS} or {MANIFEST} is not what was written")
    return found + [said for run in manifest.runs if (said := _broken(run))]


def _by_size(folder: Path, file: File) -> str | None:
    try:
        size = (folder / file.name).stat().st_size
    except OSError:
        return f"{file.name} is missing"
    return None if size == file.bytes else f"{file.name} has {size} bytes, {file.bytes} were written"


def _broken(run: Run) -> str | None:
    """Where the chain of a run's states does not hold."""
    again = chained(run.fingerprint, ((link.step, link.data_version, link.sha256) for link in run.states))
    wrong = next((link for link, made in zip(run.states, again, strict=True) if link != made), None)
    return None if wrong is None else f"the chain of run {run.run} breaks at state {wrong.step}"


def check(folder: Path, emit: Callable[[str], None] = lambda said: None, report: Report = ignore_progress) -> Manifest:
    """The manifest of a bundle that is whole.

    Raises:
        MechError: it is not.
    """
    manifest = read_manifest(folder)
    found = faults(folder, manifest, report)
    if found:
        more = f" and {len(found) - _NAMED} more faults" if len(found) > _NAMED else ""
        for said in found[_NAMED:]:
            emit(said)
        raise MechError(f"bundle {folder} is damaged: {'; '.join(found[:_NAMED])}{more}", AGAIN)
    return manifest
