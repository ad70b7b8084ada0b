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


class DamagedMark(MechError):
    """The mark is not what was written, or is gone from a store with tables."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem, "`mech verify --repair` writes it again")


def layout_of(files: Files) -> int | None:
    """The layout number; none if there is no mark.

    Raises:
        DamagedMark: the mark is not one.
    """
    try:
        content = files.read(MARK)
    except (FileNotFoundError, NotADirectoryError):
        try:
            content = b'{"layout": %s}' % files.read(OLD_MARK).strip()
        except (FileNotFoundError, NotADirectoryError):
            return None
    line, _, digest = content.partition(b"\n")
    try:
        if digest and digest.strip() != hashlib.sha256(line).hexdigest().encode():
            raise ValueError("its own SHA-256 does not fit")
        return int(json.loads(line)["layout"])
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedMark(f"{files.url(MARK)} is damaged: {content[:40]!r}") from error


def check_marked(files: Files) -> None:
    """That what is no store, by its mark, holds no tables either.

    Raises:
        DamagedMark: it does: its mark is gone.
    """
    if next(iter(files.entries("tables")), None) is not None and layout_of(files) is None:  # nobody made one meanwhile
        raise DamagedMark(f"{files.url(MARK)} is gone, and there are tables beside it")


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
        check_marked(files)
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
    """What is wrong with the mark; none if nothing is."""
    try:
        content = files.read(MARK)
    except (FileNotFoundError, NotADirectoryError):
        return None if files.info(OLD_MARK) is not None else "is gone"
    line, _, digest = content.partition(b"\n")
    whole = digest == hashlib.sha256(line).hexdigest().encode() + b"\n"
    return None if whole else "is not as it was written"
