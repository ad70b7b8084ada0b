"""Launched runs that were found current: looking at them again costs nothing until the store or the code changes."""

import time

from mech_pipeline.mechanisms.known import KNOWN
from mech_pipeline.store.reading.snapshot import take_snapshot
from mech_pipeline.store.store import Store
from mech_pipeline.store.tables.all import TABLES

FORGOTTEN_AFTER = 600.0
"""Seconds. A checkpoint's file that is gone changes no table, so every run is looked at again once in a while."""


class KnownCurrent:
    """What a code server remembers between ticks. New code is a new code server; a corpus is read at each launch."""

    def __init__(self) -> None:
        self._at: object = None
        self._runs: set[str] = set()
        self._since = 0.0

    def at(self, store: Store) -> set[str]:
        """Runs with nothing to do, as the store is now; to be added to by whoever looks at one and finds nothing."""
        versions = {name: found and found.version for name, found in take_snapshot(store.files, TABLES).tables.items()}
        code = [{name: one.version for name, one in them.items()} for them in (KNOWN.mechanisms, KNOWN.detectors)]
        old = time.monotonic() - self._since > FORGOTTEN_AFTER
        if old or self._at != (store.root, versions, code):
            self._at, self._runs, self._since = (store.root, versions, code), set(), time.monotonic()
        return self._runs
