"""Damage done to a store's files behind its back."""

import random

from mech_pipeline.store.store import Store


def flip(store: Store, name: str, place: int | None = None) -> None:
    """One bit of a file, the file's size unchanged."""
    content = bytearray(store.files.read(name))
    place = random.Random(name).randrange(len(content)) if place is None else place
    content[place] ^= 1 << (place % 8)
    store.files.write(name, bytes(content))
