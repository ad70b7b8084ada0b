"""The content of a file of example weights, by its hash."""

from functools import lru_cache
from pathlib import Path

from mech_pipeline.errors import MechError
from mech_pipeline.spec.fingerprint import file_sha256


def weights_sha256(name: str, home: Path | None = None) -> str:
    """SHA-256 of a weights file.

    Args:
        home: folder that a relative name begins at; default: the current one.

    Raises:
        MechError: there is no such file.
    """
    path = (home or Path.cwd()) / name
    if not path.is_file():
        raise MechError(f"weights file {name} does not exist in {home or Path.cwd()}", "check `data.weights`")
    found = path.stat()
    return _sha256(str(path.absolute()), found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=16)
def _sha256(path: str, _size: int, _modified: int) -> str:
    return file_sha256(Path(path))
