"""A folder of safetensors: `step0/`, `step1000/` … (or `checkpoint-1000/`), or `step_1000.safetensors` beside one config.json.

A folder of a step may have `pytorch_model.bin` instead: see `readable.py`.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mech_pipeline.errors import MechError
from mech_pipeline.exchange.suites.layout import BIN, CONFIG, Revision, by_step, sampled_identity
from mech_pipeline.exchange.suites.readable import readable
from mech_pipeline.spec.imported import Imported


class Folder:
    """See the module."""

    def revisions(self, spec: Imported) -> list[Revision]:
        """What there is, by rising step."""
        place = spec.home / spec.place
        if not place.is_dir():
            raise MechError(f"imported.place: there is no folder {place}", "name the folder with the revisions")
        holds = [path for path in place.iterdir() if path.suffix == ".safetensors" or _has_weights(path)]
        named = by_step((path.name for path in holds), spec, str(place))
        return [Revision(step, name, sampled_identity(_files(place, name), str(place))) for step, name in named]

    def config(self, spec: Imported, name: str) -> bytes:
        """Its own, or the one above it."""
        place = spec.home / spec.place
        found = next((path for path in (place / name / CONFIG, place / CONFIG) if path.is_file()), None)
        if found is None:
            raise MechError(f"{place} has no {CONFIG}, and neither has {name}", "put the model's config.json there")
        return found.read_bytes()

    @contextmanager
    def opened(self, spec: Imported, name: str) -> Iterator[Path]:
        """The folder itself, or one with links where its config.json lies above it."""
        place = spec.home / spec.place
        files = _files(place, name)
        if not any(file.exists() for file in files):
            raise MechError(f"revision {name} of {place} is gone", "put it back, or run the experiment again")
        if (place / name / CONFIG).is_file():
            with readable(place / name, str(place / name)) as whole:
                yield whole
            return
        if not (place / CONFIG).is_file():
            raise MechError(f"{place} has no {CONFIG}, and neither has {name}", "put the model's config.json there")
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            for file in [*files, place / CONFIG]:
                target = (
                    "model.safetensors" if (place / name).is_file() and file.suffix == ".safetensors" else file.name
                )
                (folder / target).symlink_to(file.absolute())
            with readable(folder, str(place / name)) as whole:
                yield whole


def _has_weights(path: Path) -> bool:
    return any(next(path.glob(pattern), None) is not None for pattern in ("*.safetensors", f"{BIN}*"))


def _files(place: Path, name: str) -> list[Path]:
    """The files of a revision that hold weights or say what they are."""
    path = place / name
    if path.is_file():
        return [path]
    return sorted(
        each
        for each in path.glob("*")
        if each.suffix == ".safetensors"
        or each.name.endswith((".index.json", CONFIG))
        or each.match("pytorch_model*.bin")
    )
