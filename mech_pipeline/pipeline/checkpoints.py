"""The checkpoints of a run as the store has them, and what they are made from."""

import io
import json
from collections.abc import Sequence
from math import prod

from mech_pipeline.pipeline.cells import Version, stored_versions
from mech_pipeline.pipeline.look import among, answer_of
from mech_pipeline.spec.fingerprint import fingerprint
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.store.blobs import Blob
from mech_pipeline.store.store import Store
from mech_pipeline.store.tensors import tensor_shapes

TRAINING_VERSION = "1"
POINTER = "revision.json"
"""File of a checkpoint that came from outside: which revision it is, and the SHA-256 of what that must give."""


def artifact_versions(store: Store, run: str) -> dict[str, str]:
    """Data version of each tokenised artifact of a run."""
    return {str(cell.item): version.data_version for cell, version in stored_versions(store, "tokens", run).items()}


def training_fingerprint(store: Store, spec: RunSpec) -> str | None:
    """What every checkpoint of the run is made from; none while its tokens are not made."""
    versions = artifact_versions(store, spec.run)
    names = ["pool", *spec.treatments]
    if not set(names) <= set(versions):
        return None
    return fingerprint("training", TRAINING_VERSION, spec.training_slice(), *(versions[name] for name in names))


def trunk_fingerprint(store: Store, spec: RunSpec) -> str | None:
    """What the checkpoints of a run are made from as long as it does nothing to examples or model; none without a pool."""
    pool = artifact_versions(store, spec.run).get("pool")
    return None if pool is None else fingerprint("training", TRAINING_VERSION, spec.trunk_slice(), pool)


def checkpoint_fingerprint(training: str, step: int) -> str:
    """What one checkpoint is made from."""
    return fingerprint(training, step)


def expected_fingerprint(spec: RunSpec, training: str, step: int) -> str:
    """The same of a run as it is described now: a state from outside is made from its revision."""
    made_from = checkpoint_fingerprint(training, step)
    if spec.imported is None:
        return made_from
    known = step in spec.imported.found_steps
    return fingerprint(made_from, spec.imported.revision(step)[1] if known else "gone")


def current_checkpoints(store: Store, spec: RunSpec) -> dict[int, Version]:
    """The run's checkpoints that are current and whose files are there."""
    training = training_fingerprint(store, spec)
    if training is None:
        return {}
    stored = stored_versions(store, "checkpoints", spec.run)
    blobs = checkpoint_blobs(store, spec.run)
    there = {(entry.name, entry.bytes) for entry in store.files.entries(f"blobs/checkpoints/run={spec.run}")}
    current: dict[int, Version] = {}
    for cell in sorted(stored):
        step = cell.step
        assert step is not None, "a checkpoint is of a step"
        expected = expected_fingerprint(spec, training, step)
        if stored[cell].input_fingerprint == expected and (blobs[step].uri, blobs[step].bytes) in there:
            current[step] = stored[cell]
    return current


def checkpoint_blobs(store: Store, run: str) -> dict[int, Blob]:
    """The file of each checkpoint that the run ever kept, by step."""
    return answer_of(store, "files of checkpoints", run, lambda runs: _read_blobs(store, runs))


def is_pointer(blob: Blob) -> bool:
    """Whether a checkpoint's file says where its weights are, instead of holding them."""
    return blob.uri.endswith(f"/{POINTER}")


def stored_parameter_count(store: Store, run: str) -> int | None:
    """How many parameters the run's model has, from the head of a checkpoint's file; none where no checkpoint is kept."""
    blobs = checkpoint_blobs(store, run)
    if not blobs:
        return None
    blob = blobs[min(blobs)]
    if is_pointer(blob):
        return int(json.loads(store.files.read(blob.uri))["parameters"])
    path = store.files.local_path(blob.uri)
    try:
        with io.BytesIO(store.files.read(blob.uri)) if path is None else path.open("rb") as file:
            shapes = tensor_shapes(file)
    except FileNotFoundError:
        return None
    return sum(prod(shape) for name, shape in shapes.items() if name.startswith("model."))


def _read_blobs(store: Store, runs: Sequence[str]) -> dict[str, dict[int, Blob]]:
    with store.reading("checkpoints", of=runs) as connection:
        rows = connection.execute(
            f"select run, step, uri, bytes, sha256 from checkpoints where {among('run', runs)}", list(runs)
        ).fetchall()
    found: dict[str, dict[int, Blob]] = {run: {} for run in runs}
    for run, step, *blob in rows:
        found[run][step] = Blob(*blob)
    return found


def provenance_columns(count: int, input_fingerprint: str, data_version: str) -> dict[str, list[str]]:
    """The two provenance columns of a block of rows."""
    return {"input_fingerprint": [input_fingerprint] * count, "data_version": [data_version] * count}
