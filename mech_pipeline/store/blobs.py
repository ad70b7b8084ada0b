"""Immutable files under a fresh name each time, published by a row that names size and SHA-256.

A file is written aside, flushed to disk and renamed, so a name either holds the whole content or does not exist;
a crash leaves at most an orphan that no row names.
"""

import hashlib
import os
import uuid
from dataclasses import dataclass
from pathlib import Path

from mech_pipeline.errors import MechError


@dataclass(frozen=True)
class Blob:
    """Where a file lies under the store's root, and what it must hold."""

    uri: str
    bytes: int
    sha256: str


def put_blob(root: Path, folder: str, name: str, content: bytes, *, content_addressed: bool = False) -> Blob:
    """Writes `blobs/<folder>/<fresh or content id>/<name>` and returns what the index row needs.

    Content-addressed files are written once and shared by whoever has the same content.
    """
    sha256 = hashlib.sha256(content).hexdigest()
    unique = sha256[:24] if content_addressed else uuid.uuid4().hex[:12]
    uri = f"blobs/{folder}/{unique}/{name}"
    path = root / uri
    if not (content_addressed and path.is_file() and path.stat().st_size == len(content)):
        write_whole(path, content)
    return Blob(uri, len(content), sha256)


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file so that a reader sees either the old or the whole new content, also after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}-{uuid.uuid4().hex[:6]}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def get_blob(root: Path, blob: Blob, what: str, next_step: str) -> bytes:
    """Reads a file and checks it against its row.

    Args:
        what: how to name the thing in an error, for example "checkpoint 400 of run x".
        next_step: what the reader of the error should do.

    Raises:
        MechError: the file is missing, or its content is not what was written.
    """
    path = root / blob.uri
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise MechError(f"{what} is missing: {path}", next_step) from error
    if hashlib.sha256(content).hexdigest() != blob.sha256:
        raise MechError(f"{what} is corrupt: {path} does not have SHA-256 {blob.sha256[:12]}…", next_step)
    return content
