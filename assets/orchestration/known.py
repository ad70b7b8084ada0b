"""Launched runs that were found current: looking at them again costs nothing until the store or the code changes."""

from mech_pipeline.mechanisms.registry import DETECTORS, MECHANISMS
from mech_pipeline.store.snapshot import take_snapshot
from mech_pipeline.store.store import Store
from mech_pipeline.store.tables import TABLES


class KnownCurrent:
    """What a code server remembers between ticks. New code is a new code server; a corpus is read at each launch."""

    def __init__(self) -> None:
        self._at: object = None
        self._runs: set[str] = set()

    def at(self, store: Store) -> set[str]:
        """Runs with nothing to do, as the store is now; to be added to by whoever looks at one and finds nothing."""
        versions = {name: found and found.version for name, found in take_snapshot(store.files, TABLES).tables.items()}
        code = [{name: one.version for name, one in them.items()} for them in (MECHANISMS, DETECTORS)]
        if self._at != (store.root, versions, code):
            self._at, self._runs = (store.root, versions, code), set()
        return self._runs
