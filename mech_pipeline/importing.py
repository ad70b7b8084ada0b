"""Importing much at once."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_looking_for_garbage() -> Iterator[None]:
    """While the block imports, nothing is garbage, and Python does not look for it.

    Looking takes a fifth of the time in which PyTorch, Dagster and what they need are imported. What was imported is not set
    aside for good (`gc.freeze`): DuckDB's binding would take it for a leak when Python ends, and say so.
    """
    looks = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if looks:
            gc.enable()
