"""Importing much at once."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_looking_for_garbage() -> Iterator[None]:
    """While the block imports, nothing is garbage, and Python does not look for it; nor later among what was imported.

    Looking takes a fifth of the time in which PyTorch, Dagster and what they need are imported.
    """
    looks = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if looks:
            gc.freeze()
            gc.enable()
