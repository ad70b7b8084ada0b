"""What a layout of a suite is: its revisions by step, and each as a folder of `transformers` (config.json, *.safetensors)."""

import hashlib
import json
import re
import struct
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mech_pipeline.errors import MechError
from mech_pipeline.spec.imported import Imported

_SAMPLES, _SAMPLE_BYTES = 16, 1 << 12
_NUMBER = re.compile(r"\d+")
_STEP = re.compile(r"step[-_]?(\d+)|checkpoint[-_](\d+)", flags=re.IGNORECASE)


@dataclass(frozen=True)
class Revision:
    """One state of a suite.

    Attributes:
        name: by which the layout finds it again.
        identity: of what it holds; another one means another state.
    """

    step: int
    name: str
    identity: str


CONFIG = "config.json"
BIN = "pytorch_model.bin"
"""Pickled weights of `transformers`; with shards, `pytorch_model.bin.index.json` names them."""
DEEPSPEED_MODEL = "mp_rank_00_model_states.pt"
"""The file of DeepSpeed that a folder of a step always has."""
MOMENTS = "moments.safetensors"
"""Beside a revision's weights: `exp_avg.<name>`, `exp_avg_sq.<name>`, where the layout brings the optimizer's moments."""


class Layout(Protocol):
    """One way to keep a suite."""

    def revisions(self, spec: Imported) -> list[Revision]:
        """What there is, by rising step.

        Raises:
            MechError: the place is not there, or holds no revision.
        """

    def config(self, spec: Imported, name: str) -> bytes:
        """config.json of one revision, without its weights.

        Raises:
            MechError: it is not there.
        """

    def opened(self, spec: Imported, name: str) -> AbstractContextManager[Path]:
        """A folder with config.json and *.safetensors of one revision, while the block runs.

        Raises:
            MechError: it is not there, or not whole.
        """


def step_of(name: str) -> int | None:
    """The step that a name tells: after the word step or checkpoint, or its only number; none if it tells none.

    >>> step_of("step1000"), step_of("stage1-step500-tokens2B"), step_of("checkpoint-20"), step_of("0007"), step_of("main")
    (1000, 500, 20, 7, None)
    """
    if found := _STEP.search(name):
        return int(found[1] or found[2])
    numbers = _NUMBER.findall(name)
    return int(numbers[0]) if len(numbers) == 1 else None


def by_step(names: Iterable[str], spec: Imported, place: str) -> list[tuple[int, str]]:
    """Step and name of the revisions that are asked for, rising.

    Raises:
        MechError: none is there, a step is there twice, or one that is asked for is not there.
    """
    told = [
        (spec.revisions[name] if spec.revisions else step_of(name), name)
        for name in names
        if not spec.revisions or name in spec.revisions
    ]
    found: dict[int, str] = {}
    for step, name in told:
        if step is None:
            continue
        if step in found:
            raise MechError(
                f"{place}: {found[step]} and {name} are both of step {step}", "name steps in imported.revisions"
            )
        found[step] = name
    if not found:
        raise MechError(f"{place} has no revision whose name tells a step", "name steps in imported.revisions")
    if missing := sorted(set(spec.revisions.values()) - set(found)) or sorted(set(spec.steps or ()) - set(found)):
        raise MechError(
            f"{place} has no revision of step {', '.join(map(str, missing[:5]))}; it has {_listed(sorted(found))}",
            "take them out of imported.steps, or fetch them",
        )
    return [(step, found[step]) for step in sorted(found) if spec.steps is None or step in spec.steps]


def _listed(steps: list[int]) -> str:
    shown = ", ".join(map(str, steps[:8]))
    return shown if len(steps) <= 8 else f"{shown} … {steps[-1]}"


def sampled_identity(files: Iterable[Path], place: str) -> str:
    """A hash of names, sizes, heads and sixteen samples of each file: fast for large files, and another for other weights.

    Raises:
        MechError: a file cannot be read.
    """
    digest = hashlib.sha256()
    for path in sorted(files):
        try:
            size = path.stat().st_size
            digest.update(f"{path.name}\0{size}\0".encode())
            with path.open("rb") as opened:
                for place_in_file in range(0, size, max(1, size // _SAMPLES)):
                    opened.seek(place_in_file)
                    digest.update(opened.read(_SAMPLE_BYTES))
        except OSError as error:
            raise MechError(f"{place}: {path.name} cannot be read: {error.strerror}", "fetch it again") from error
    return digest.hexdigest()


def check_shards(folder: Path, place: str) -> None:
    """That all shards are there that an index names, and no file is cut.

    Raises:
        MechError: one is missing or cut.
    """
    for index in folder.glob("*.safetensors.index.json"):
        named = set(json.loads(index.read_bytes())["weight_map"].values())
        if missing := sorted(name for name in named if not (folder / name).is_file()):
            raise MechError(f"{place}: shard {missing[0]} is missing", "fetch the revision again")
    for path in folder.glob("*.safetensors"):
        if (problem := _cut(path)) is not None:
            raise MechError(f"{place}: {path.name} {problem}", "fetch the revision again")


def _cut(path: Path) -> str | None:
    size = path.stat().st_size
    try:
        with path.open("rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            header: dict[str, Any] = json.loads(opened.read(length)) if length < size else {}
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    except (struct.error, ValueError, KeyError, TypeError):
        return "is no safetensors file, or cut"
    wanted = 8 + length + max(ends, default=0)
    return None if ends and wanted == size else f"has {size} bytes, its head tells of {wanted}"
