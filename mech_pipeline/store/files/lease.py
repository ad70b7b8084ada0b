"""A lock on S3: a lease that its holder renews.

Generations `locks/<name>/<number>` are created with If-None-Match, so the server decides who is first. The holder writes
the time into its own object every few seconds; a generation that was released, or was not renewed for a minute, or whose
process is gone from this machine, may be followed by the next. Nothing is ever deleted by anyone but the next holder.
A lease keeps two processes from doing the same work; correctness does not rest on it (Delta commits do that).
"""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Protocol, runtime_checkable

from mech_pipeline.errors import MechError

RENEW_SECONDS, EXPIRE_SECONDS = 15.0, 60.0


@runtime_checkable
class _Generations(Protocol):
    """What a lease needs of the place it lies in, with names and content as in `Files`."""

    def names(self, folder: str) -> list[str]: ...
    def read(self, name: str) -> bytes: ...
    def write(self, name: str, content: bytes) -> None: ...
    def remove(self, names: Sequence[str]) -> None: ...
    def create(self, name: str, content: bytes) -> bool: ...


@contextmanager
def lease(files: _Generations, folder: str, doing: str) -> Iterator[None]:
    """Holds the lease of a folder while the block runs.

    Raises:
        MechError: another process holds it.
    """
    number = _acquire(files, folder, doing)
    mine, stop = f"{folder}/{number:08d}", threading.Event()

    def renew() -> None:
        while not stop.wait(RENEW_SECONDS):
            with suppress(Exception):  # one failed renewal is made good by the next
                files.write(mine, _content())

    thread = threading.Thread(target=renew, name=f"lease {folder}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        files.write(mine, _content(released=True))


def _acquire(files: _Generations, folder: str, doing: str) -> int:
    generations = files.names(folder)
    latest = int(generations[-1]) if generations else 0
    if latest:
        held = json.loads(files.read(f"{folder}/{latest:08d}"))
        if not _is_free(held):
            raise MechError(
                f"cannot {doing}: process {held['process']} on {held['host']} is writing it",
                f"wait for it, or stop it, and run again (its lease ends {EXPIRE_SECONDS:.0f} s after it died)",
            )
    if not files.create(f"{folder}/{latest + 1:08d}", _content()):
        raise MechError(f"cannot {doing}: another process has just begun to write it", "wait for it, and run again")
    files.remove([f"{folder}/{name}" for name in generations])
    return latest + 1


def _content(released: bool = False) -> bytes:
    return json.dumps(
        {"host": socket.gethostname(), "process": os.getpid(), "renewed": time.time(), "released": released}
    ).encode()


def _is_free(held: dict[str, object]) -> bool:
    if held["released"] or time.time() - float(str(held["renewed"])) > EXPIRE_SECONDS:
        return True
    if held["host"] != socket.gethostname():
        return False
    try:
        os.kill(int(str(held["process"])), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
