"""The tokens of single examples, read back from a run's pool for reports and figures."""

from collections.abc import Sequence

import numpy as np

from mech_pipeline.data.example_tokens import ExampleTokens, TokenReader, pieces_of
from mech_pipeline.pipeline.checkpoints import artifact_versions
from mech_pipeline.pipeline.tokens.tokens import stored_pool, stored_tokenizer
from mech_pipeline.store.store import Store

MOST_TOKENS = 50_000_000
"""Of more, none are read: they would take gigabytes."""


def stored_tokens(store: Store) -> TokenReader:
    """Reads from the pool of the run that is named; a run whose pool is not in the store has none."""

    def read(run: str, example_ids: Sequence[str]) -> ExampleTokens | None:
        if "pool" not in artifact_versions(store, run):
            return None
        pool = stored_pool(store, run)
        known = pool.ids[np.arange(len(pool.ids))]
        asked = np.array([int(name, 16) for name in example_ids], dtype=np.uint64)
        order = np.argsort(known)
        place = order[np.clip(np.searchsorted(known, asked, sorter=order), 0, len(known) - 1)]
        if not np.array_equal(known[place], asked) or len(asked) * pool.tokens.shape[1] > MOST_TOKENS:
            return None
        return ExampleTokens(pool.tokens[place], pieces_of(stored_tokenizer(store, run)))

    return read
