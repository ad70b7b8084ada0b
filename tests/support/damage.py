"""Damage done to a store's files behind its back."""

import random
from collections.abc import Callable
from pathlib import Path

from mech_pipeline.store.store import Store


def flip(store: Store, name: str, place: int | None = None) -> None:
    """One bit of a file, the file's size unchanged."""
    content = bytearray(store.files.read(name))
    place = random.Random(name).randrange(len(content)) if place is None else place
    content[place] ^= 1 << (place % 8)
    store.files.write(name, bytes(content))


def kind_of(name: str) -> str:
    """What a file of a store is."""
    parts = name.split("/")
    if parts[0] == "tables" and "_delta_log" in parts:
        return "log entry" if name.endswith(".json") else "log checkpoint"
    return {"tables": "data file", "checksums": "record", "blobs": "blob", "reports": "page"}.get(parts[0], parts[0])


def _flipped(content: bytes, other: bytes, place: float) -> bytes:
    changed = bytearray(content)
    changed[int(place * len(content))] ^= 1 << int(place * 8000) % 8
    return bytes(changed)


WAYS: dict[str, Callable[[bytes, bytes, float], bytes | None]] = {
    "bit": _flipped,
    "truncated": lambda content, other, place: content[: int(place * len(content))],
    "emptied": lambda content, other, place: b"",
    "deleted": lambda content, other, place: None,
    "replaced": lambda content, other, place: other,
}
"""(content, that of another file of its kind, place in [0, 1)) → what the file holds afterwards; none: it is gone."""


def damage(root: Path, name: str, way: str, place: float, other: str) -> None:
    """Does it to a file whose bytes other stores may share: another file takes its name.

    Args:
        other: a file of the same kind.
    """
    path = root / name
    changed = WAYS[way](path.read_bytes(), (root / other).read_bytes(), place)
    path.unlink()
    if changed is not None:
        path.write_bytes(changed)
