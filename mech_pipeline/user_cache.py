"""What processes leave for the next in the user's cache: it can be made again, and may go at any time."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path


def kept_folder() -> Path:
    """`mech_pipeline` under XDG_CACHE_HOME, by default `~/.cache`; copies of remote blobs have another place (`roots.py`)."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    return home / "mech_pipeline"


def kept(path: Path, make: Callable[[], str]) -> str:
    """The text that an earlier process left there, else what `make` gives, which is left for the next.

    The first line of the file is the SHA-256 of the rest; a file that does not fit its hash is made again.
    """
    try:
        sha256, _, text = path.read_bytes().decode().partition("\n")
    except (OSError, ValueError):
        sha256, text = "", ""
    if sha256 == _sha256(text):
        return text
    made = make()
    leave(path, f"{_sha256(made)}\n{made}")
    return made


def leave(path: Path, content: str) -> None:
    """Writes a file, whole or not at all; whoever cannot write does without."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        half = path.with_suffix(f".{os.getpid()}")
        half.write_text(content, encoding="utf-8", newline="")
        half.replace(path)
    except OSError:
        return


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
