"""Tokenised artifacts in the store: one file each, or an index file and shards of bounded size.

The index file holds the SHA-256 of every shard, so that its own stands for all of the content. Shards are named by
rows of `token_shards`, written as each shard is, so that maintenance never takes a file of a long tokenisation for
rubbish. The row of `tokens` comes last: it makes the artifact exist.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save as save_arrays

from mech_pipeline.data.sharded import ShardedArray
from mech_pipeline.errors import MechError
from mech_pipeline.pipeline.checkpoints import provenance_columns
from mech_pipeline.pipeline.look import among, answer_of
from mech_pipeline.store.blobs import Blob, blob_path, is_there
from mech_pipeline.store.store import Store
from mech_pipeline.store.tensors import mapped_arrays

CODE_VERSION = "1"
SHARD_BYTES = 128 << 20
"""Most bytes of tokens in one file. What fits into one stays one file."""
AGAIN = "`mech verify --repair`, then `mech run` the experiment: tokens are made again, nothing else"


@dataclass(frozen=True)
class Shard:
    """One of several files of an artifact."""

    blob: Blob
    rows: int


@dataclass(frozen=True)
class Artifact:
    """What the index row needs: the file, what is in it, and its shards if it has any."""

    blob: Blob
    rows: int
    shards: tuple[Shard, ...] = ()


@dataclass
class ShardWriter:
    """Stores shards as they are made.

    Attributes:
        made_from: fingerprint of the artifact.
    """

    store: Store
    run: str
    artifact: str
    made_from: str
    shards: list[Shard] = field(default_factory=list)

    def add(self, arrays: Mapping[str, NDArray], rows: int) -> None:
        """Writes one file and its row."""
        number = len(self.shards)
        content = save_arrays(dict(arrays))
        shard = Shard(self.store.put_blob("tokens", f"{self.artifact}-{number:05d}.safetensors", content), rows)
        columns = _shard_columns(self.run, self.artifact, self.made_from, [shard], number)
        cell: dict[str, list[Any]] = {"run": [self.run], "artifact": [self.artifact], "shard": [number]}
        self.store.write("token_shards", columns, replace=cell, code_version=CODE_VERSION)
        self.shards.append(shard)

    def finish(self, index: Mapping[str, NDArray], rows: int) -> Artifact:
        """Writes the index file."""
        hashes = b"".join(bytes.fromhex(shard.blob.sha256) for shard in self.shards)
        described = {**index, "shard_sha256": np.frombuffer(hashes, dtype=np.uint8).reshape(-1, 32)}
        blob = self.store.put_blob("tokens", f"{self.artifact}.safetensors", save_arrays(described))
        return Artifact(blob, rows, tuple(self.shards))


def write_artifact(store: Store, run: str, name: str, artifact: Artifact, made_from: str) -> None:
    """Writes the rows that make an artifact exist for a run."""
    cell = {"run": [run], "artifact": [name]}
    if artifact.shards:
        rows = _shard_columns(run, name, made_from, artifact.shards)
        store.write("token_shards", rows, replace=cell, code_version=CODE_VERSION)
    elif _stored_shards(store, run, name):
        store.delete("token_shards", f"run = '{run}' and artifact = '{name}'", code_version=CODE_VERSION)
    columns: dict[str, list[Any]] = {
        "run": [run],
        "artifact": [name],
        "rows": [artifact.rows],
        **_blob_columns([artifact.blob]),
        "shards": [len(artifact.shards) or None],
        **provenance_columns(1, made_from, artifact.blob.sha256),
    }
    store.write("tokens", columns, replace=cell, code_version=CODE_VERSION)


def read_artifact(store: Store, run: str, name: str) -> Artifact:
    """An artifact of a run.

    Raises:
        MechError: it was not made, or the rows of its shards are lost.
    """
    with store.reading("tokens") as connection:
        rows = connection.execute(
            "select uri, bytes, sha256, rows, shards from tokens where run = ? and artifact = ?", [run, name]
        ).fetchall()
    if not rows:
        raise MechError(f"run {run} has no {name}", "materialize `tokens` for it, or `mech run` its experiment")
    uri, size, sha256, count, n_shards = rows[0]
    shards = _stored_shards(store, run, name) if n_shards else ()
    if len(shards) != (n_shards or 0):
        raise MechError(f"{name} of run {run} has {len(shards)} of its {n_shards} shards", AGAIN)
    return Artifact(Blob(uri, size, sha256), count, shards)


def shared_artifacts(store: Store, fingerprints: Iterable[str]) -> dict[str, Artifact]:
    """Whole artifacts that some run of the store has already, by what they are made from."""
    with store.reading("tokens") as connection:
        rows = connection.execute(
            "select input_fingerprint, run, artifact, uri, bytes, sha256, rows, shards from tokens "
            "where list_contains(?, input_fingerprint)",
            [list(fingerprints)],
        ).fetchall()
    found: dict[str, Artifact] = {}
    for made_from, run, name, uri, size, sha256, count, n_shards in rows:
        if made_from in found:
            continue
        artifact = Artifact(Blob(uri, size, sha256), count, _stored_shards(store, run, name) if n_shards else ())
        blobs = [artifact.blob, *(shard.blob for shard in artifact.shards)]
        if len(artifact.shards) == (n_shards or 0) and all(is_there(store.files, blob) for blob in blobs):
            found[made_from] = artifact
    return found


def incomplete_artifacts(store: Store, run: str) -> set[str]:
    """Artifacts of a run some of whose shards have lost their rows."""
    sharded = answer_of(store, "numbers of shards", run, lambda runs: _read_numbers_of_shards(store, runs))
    return {name for name, count in sharded.items() if len(_stored_shards(store, run, name)) != count}


def _read_numbers_of_shards(store: Store, runs: Sequence[str]) -> dict[str, dict[str, int]]:
    with store.reading("tokens", of=runs) as connection:
        rows = connection.execute(
            f"select run, artifact, shards from tokens where {among('run', runs)} and shards > 0", list(runs)
        ).fetchall()
    return {name: {artifact: count for run, artifact, count in rows if run == name} for name in runs}


def sharded(store: Store, artifact: Artifact, what: str) -> dict[str, ShardedArray]:
    """The arrays of all shards, mapped into memory and joined by name.

    Raises:
        MechError: a file is missing or has another size.
    """
    paths = [
        blob_path(store.files, shard.blob, f"shard {number} of {what}", AGAIN)
        for number, shard in enumerate(artifact.shards)
    ]
    arrays = [mapped_arrays(path) for path in paths]
    return {name: ShardedArray([part[name] for part in arrays]) for name in arrays[0]}


def _stored_shards(store: Store, run: str, name: str) -> tuple[Shard, ...]:
    with store.reading("token_shards") as connection:
        rows = connection.execute(
            "select uri, bytes, sha256, rows from token_shards where run = ? and artifact = ? order by shard",
            [run, name],
        ).fetchall()
    return tuple(Shard(Blob(*row[:3]), row[3]) for row in rows)


def _shard_columns(
    run: str, name: str, made_from: str, shards: Iterable[Shard], first: int = 0
) -> dict[str, list[Any]]:
    shards = list(shards)
    return {
        "run": [run] * len(shards),
        "artifact": [name] * len(shards),
        "shard": list(range(first, first + len(shards))),
        "rows": [shard.rows for shard in shards],
        **_blob_columns([shard.blob for shard in shards]),
        "input_fingerprint": [made_from] * len(shards),
        "data_version": [shard.blob.sha256 for shard in shards],
    }


def _blob_columns(blobs: Iterable[Blob]) -> dict[str, list[Any]]:
    blobs = list(blobs)
    return {name: [getattr(blob, name) for blob in blobs] for name in ("uri", "bytes", "sha256")}
