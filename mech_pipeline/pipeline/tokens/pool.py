"""The pool in the store: drawn examples → one file or shards, and back as arrays that are read by example."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from mech_pipeline.data.drawing import Chunk, DrawnPool
from mech_pipeline.data.sharded import ShardedArray
from mech_pipeline.data.tokenizer import token_dtype
from mech_pipeline.pipeline.tokens import artifacts
from mech_pipeline.pipeline.tokens.artifacts import Artifact, ShardWriter
from mech_pipeline.spec.mixture import members
from mech_pipeline.store.store import Store

_USUAL = {"tiled", "plain"}
"""Groups that a pool without parts and packing has; its file tells them apart by the period."""


@dataclass(frozen=True)
class StoredPool:
    """What the pool's files hold.

    Attributes:
        tokens: [example, token].
        ids: of the examples, as numbers.
        group: place of each example's group in `names`.
    """

    tokens: ShardedArray
    ids: ShardedArray
    group: ShardedArray
    names: tuple[str, ...]

    def members(self, groups: Sequence[str]) -> dict[str, NDArray[np.int64]]:
        """Indices of the examples of each group of a mixture."""
        codes = self.group[np.arange(len(self.group))]
        return {
            name: np.flatnonzero(np.isin(codes, [self.names.index(one) for one in members(name, self.names)]))
            for name in groups
        }


def store_pool(store: Store, run: str, drawn: DrawnPool, context: int, vocabulary: int, made_from: str) -> Artifact:
    """Writes the pool; one file if its tokens fit into one at 4 bytes each, else shards of 2 or 4 bytes a token."""
    names = [group.name for group in drawn.groups]
    described = {"groups": np.frombuffer(json.dumps(names).encode(), dtype=np.uint8)}
    if len(drawn) * context * 4 <= artifacts.SHARD_BYTES:
        columns = _columns(list(drawn.chunks()), names, np.int32)
        if set(names) <= _USUAL:
            del columns["group"]
            described = {}
        blob = store.put_blob("tokens", "pool.safetensors", save_arrays(columns | described))
        return Artifact(blob, len(drawn))
    dtype = token_dtype(vocabulary)
    rows = max(1, artifacts.SHARD_BYTES // (context * np.dtype(dtype).itemsize))
    writer = ShardWriter(store, run, "pool", made_from)
    for chunk in drawn.chunks(rows):
        parts = [Chunk(chunk.group, begin, end) for begin, end in _stretches(chunk, context)]
        writer.add(_columns(parts, names, dtype), chunk.end - chunk.begin)
    return writer.finish(described, len(drawn))


def open_pool(store: Store, artifact: Artifact, what: str) -> StoredPool:
    """The pool as it was made.

    Raises:
        MechError: a file is missing or damaged.
    """
    arrays = load_arrays(store.get_blob(artifact.blob, what, artifacts.AGAIN))
    names = tuple(json.loads(arrays["groups"].tobytes())) if "groups" in arrays else ("plain", "tiled")
    if artifact.shards:
        columns = artifacts.sharded(store, artifact, what)
        return StoredPool(columns["tokens"], columns["example_id"], columns["group"], names)
    group = arrays["group"] if "group" in arrays else (arrays["period"] > 0).astype(np.uint16)
    tokens, ids, groups = (ShardedArray([array]) for array in (arrays["tokens"], arrays["example_id"], group))
    return StoredPool(tokens, ids, groups, names)


def _columns(chunks: Sequence[Chunk], names: list[str], dtype: type[np.integer]) -> dict[str, NDArray]:
    """Stretches of the pool, one after the other, as they are stored."""
    return {
        "tokens": np.concatenate([chunk.tokens().astype(dtype) for chunk in chunks]),
        "period": np.concatenate([chunk.places.period for chunk in chunks]),
        "document": np.concatenate([chunk.places.document for chunk in chunks]),
        "start": np.concatenate([chunk.places.start for chunk in chunks]),
        "example_id": np.concatenate([chunk.ids for chunk in chunks]),
        "group": np.concatenate(
            [np.full(chunk.end - chunk.begin, names.index(chunk.group.name), dtype=np.uint16) for chunk in chunks]
        ),
    }


def _stretches(chunk: Chunk, context: int) -> list[tuple[int, int]]:
    """A shard is filled a few million tokens at a time: their places take 8 bytes each, and more than once."""
    rows = max(1, (1 << 22) // context)
    return [(begin, min(begin + rows, chunk.end)) for begin in range(chunk.begin, chunk.end, rows)]
