"""The layout of a store: one number in `store.json`, and what to do with an older or newer one.

1: Delta tables and blobs, marked by a file `store.layout`. Readable.
2: adds `checksums/`, and provenance in every commit. `mech migrate` makes it from 1.
"""

import hashlib
import json
import time

from mech_pipeline.errors import MechError
from mech_pipeline.store.files.interface import Files

LAYOUT = 2
READABLE = (1, 2)
MARK, OLD_MARK = "store.json", "store.layout"


def layout_of(files: Files) -> int | None:
    """The layout number; none if there is no store.

    Raises:
        MechError: the mark is not one.
    """
    try:
        content = files.read(MARK)
    except (FileNotFoundError, NotADirectoryError):
        try:
            content = b'{"layout": %s}' % files.read(OLD_MARK).strip()
        except (FileNotFoundError, NotADirectoryError):
            return None
    try:
        return int(json.loads(content.splitlines()[0])["layout"])
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise MechError(
            f"{files.url(MARK)} is damaged: {content[:40]!r}",
            f'write {{"layout": {LAYOUT}}} into it, then `mech verify --repair`',
        ) from error


def check_readable(files: Files) -> int | None:
    """The layout, if this program can read it.

    Raises:
        MechError: it cannot.
    """
    found = layout_of(files)
    if found is not None and found not in READABLE:
        raise MechError(
            f"store {files.root} has layout {found}, this program reads layouts {READABLE[0]} to {READABLE[-1]}",
            "install the mech-pipeline version that wrote it, or name another store",
        )
    return found


def open_layout(files: Files) -> None:
    """Makes the mark of a new store, or checks that this program may write to this one.

    Raises:
        MechError: it has another layout.
    """
    found = check_readable(files)
    if found is None:
        mark(files)
    elif found != LAYOUT:
        raise MechError(
            f"store {files.root} has layout {found}, this program writes layout {LAYOUT}",
            "`mech migrate` brings it up to date; reading it works as it is",
        )


def mark(files: Files) -> None:
    """Writes the current layout."""
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    line = json.dumps({"layout": LAYOUT, "created": created}).encode()
    files.write(MARK, line + b"\n" + hashlib.sha256(line).hexdigest().encode() + b"\n")


def check_mark(files: Files) -> str | None:
    """What is wrong with the mark's content; none if nothing is."""
    try:
        line, digest, *rest = files.read(MARK).split(b"\n")
    except (FileNotFoundError, ValueError):
        return None if layout_of(files) == 1 else "is not as it was written"
    whole = hashlib.sha256(line).hexdigest().encode() == digest and rest == [b""]
    return None if whole else "is not as it was written"
