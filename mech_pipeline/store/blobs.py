"""Immutable files under a fresh name each time, published by a row that names size and SHA-256.

A name either holds the whole content or does not exist; a crash leaves at most an orphan that no row names. The name
contains the beginning of the content's SHA-256, so that a file can be checked even when its row is lost.
"""

import hashlib
import uuid
from dataclasses import dataclass
from pathlib import Path

from mech_pipeline.errors import MechError
from mech_pipeline.store.files.interface import Files
from mech_pipeline.store.files.local import write_whole
from mech_pipeline.store.files.roots import cache_folder

_HEAD = 16


@dataclass(frozen=True)
class Blob:
    """Where a file lies under the store's root, and what it must hold."""

    uri: str
    bytes: int
    sha256: str


def put_blob(files: Files, folder: str, name: str, content: bytes) -> Blob:
    """Writes `blobs/<folder>/<SHA-256, 16 digits>-<fresh id>/<name>` and returns what the index row needs."""
    sha256 = hashlib.sha256(content).hexdigest()
    uri = f"blobs/{folder}/{sha256[:_HEAD]}-{uuid.uuid4().hex[:8]}/{name}"
    files.write(uri, content)
    files.seal([uri])
    return Blob(uri, len(content), sha256)


def get_blob(files: Files, blob: Blob, what: str, next_step: str) -> bytes:
    """Reads a file and checks it against its row.

    Args:
        what: how to name the thing in an error, for example "checkpoint 400 of run x".
        next_step: what the reader of the error should do.

    Raises:
        MechError: the file is missing, or its content is not what was written.
    """
    try:
        content = files.read(blob.uri)
    except FileNotFoundError as error:
        raise MechError(f"{what} is missing: {files.url(blob.uri)}", next_step) from error
    if hashlib.sha256(content).hexdigest() != blob.sha256:
        raise MechError(
            f"{what} is corrupt: {files.url(blob.uri)} does not have SHA-256 {blob.sha256[:12]}…", next_step
        )
    return content


def blob_path(files: Files, blob: Blob, what: str, next_step: str) -> Path:
    """A local file with the content: the blob itself, or a copy that is fetched once and checked.

    A local blob is checked for its size only: reading a hundred gigabytes through on each start would take minutes;
    `mech verify` reads them. Copies lie under MECH_CACHE, by default `~/.cache/mech_pipeline`, named by their SHA-256.

    Raises:
        MechError: the file is missing, has another size, or what was fetched is not what was written.
    """
    local = files.local_path(blob.uri)
    if local is None:
        local = cache_folder() / f"{blob.sha256}{Path(blob.uri).suffix}"
        if not (local.is_file() and local.stat().st_size == blob.bytes):
            write_whole(local, get_blob(files, blob, what, next_step))
    if not local.is_file():
        raise MechError(f"{what} is missing: {files.url(blob.uri)}", next_step)
    if local.stat().st_size != blob.bytes:
        raise MechError(
            f"{what} is corrupt: {files.url(blob.uri)} has {local.stat().st_size} bytes, {blob.bytes} were written",
            next_step,
        )
    return local


def is_there(files: Files, blob: Blob) -> bool:
    """Whether a file of that name and size exists; its content is checked when it is read."""
    found = files.info(blob.uri)
    return found is not None and found.bytes == blob.bytes


def named_sha256(uri: str) -> str:
    """The first digits of the SHA-256 that a blob's name promises; empty where it promises none."""
    unique = uri.split("/")[-2].split("-")[0]
    return unique if len(unique) == _HEAD and all(c in "0123456789abcdef" for c in unique) else ""
