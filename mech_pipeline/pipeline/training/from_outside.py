"""The checkpoints of a run that was trained elsewhere: every revision is read, checked and named, and none is copied without need.

What the store keeps of a revision is a file of some lines that says where it is and the SHA-256 of what it must give. Its
weights are read where they are whenever they are needed, one revision at a time. Where moments are reconstructed, which no
place has, the store keeps whole states. All rows are written in one commit.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from io import BytesIO

from mech_pipeline.pipeline.cells import Block, Cell, write
from mech_pipeline.pipeline.checkpoints import POINTER, TRAINING_VERSION, expected_fingerprint
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.pipeline.run_row import mark_status
from mech_pipeline.pipeline.tokens.probe_data import check_probe_data
from mech_pipeline.pipeline.training.publisher import OnCheckpoint, Saved
from mech_pipeline.pipeline.training.reconstructed import reconstructed
from mech_pipeline.pipeline.training.wanted import missing_checkpoints
from mech_pipeline.progress import Emit, Progress
from mech_pipeline.spec.fingerprint import fingerprint
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.store.blobs import Blob
from mech_pipeline.store.store import Store
from mech_pipeline.store.tensors import tensor_shapes
from mech_pipeline.training.checkpoints import pack_state, state_sha256, unpack_state, unpack_weights, vector_sha256
from mech_pipeline.training.device import computing
from mech_pipeline.training.parts import has_moments
from mech_pipeline.training.update.optimizer import Vector


def import_checkpoints(store: Store, spec: RunSpec, on_checkpoint: OnCheckpoint, emit: Emit) -> int:
    """Names what is missing of a run's revisions; returns how many.

    Raises:
        MechError: one is not there, not whole, or does not fit the model; nothing was written.
    """
    run = OpenRun(store, spec)
    with store.lock(f"training-{spec.run}", f"import run {spec.run}"):
        missing = missing_checkpoints(store, spec)
        if missing:
            check_probe_data(spec, run.tokens.probe)
        progress = Progress(emit, f"import {spec.run}", len(missing), "revisions")
        blocks = []
        for done, block in enumerate(_blocks(run, missing), start=1):
            blocks.append(block)
            progress(min(done, len(missing)))
        if blocks:
            write(store, blocks, TRAINING_VERSION)
            for block in blocks:
                assert block.cell.step is not None, "a checkpoint is of a step"
                on_checkpoint(Saved(block.cell.step, str(block.version), block.made_from, {}))
    mark_status(store, spec, "complete")
    return len(missing)


def _blocks(run: OpenRun, missing: Sequence[int]) -> Iterator[Block]:
    """The rows of revisions; where moments are reconstructed, of all from the first missing one on."""
    imported = run.spec.imported
    assert imported is not None, "asked for only of a run from outside"
    if not missing or imported.moments == "published":
        yield from (_block(run, step) for step in missing)
        return
    with computing(run.spec.training):
        for state, residual in reconstructed(run, missing[0], lambda step: _read(run, step)[1]):
            folder = f"checkpoints/run={run.spec.run}/step={state.step:08d}"
            blob = run.store.put_blob(folder, "state.safetensors", pack_state(state, run.trainer.flat))
            yield _row(
                run, state.step, blob, vector_sha256(state.theta), "reconstructed", residual, state_sha256(state)
            )


def _read(run: OpenRun, step: int) -> tuple[bytes, Vector, str]:
    """What a revision gives, its weights, and what it is in words."""
    from mech_pipeline.exchange.suites.reading import revision_state  # loads transformers

    assert run.spec.imported is not None, "asked for only of a run from outside"
    what = f"revision {run.spec.imported.revision(step)[0]} of {run.spec.imported.place}"
    content = revision_state(run.spec, step, compare=True)
    return content, unpack_weights(content, run.trainer.flat, what), what


def _block(run: OpenRun, step: int) -> Block:
    """The row of one revision, which stays where it is."""
    imported = run.spec.imported
    assert imported is not None, "asked for only of a run from outside"
    name, identity = imported.revision(step)
    content, theta, what = _read(run, step)
    moments = "native" if has_moments(tensor_shapes(BytesIO(content))) else "absent"
    said = {
        "layout": imported.layout,
        "place": imported.place,
        "revision": name,
        "identity": identity,
        "parameters": theta.numel(),
        "moments": moments,
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    blob = run.store.put_blob(
        f"checkpoints/run={run.spec.run}/step={step:08d}", POINTER, json.dumps(said, indent=1).encode() + b"\n"
    )
    weights = vector_sha256(theta)
    version = fingerprint("weights alone", step, weights)
    if moments != "absent":
        version = state_sha256(unpack_state(content, step, run.trainer.flat, what))
    return _row(run, step, blob, weights, moments, None, version)


def _row(
    run: OpenRun, step: int, blob: Blob, weights: str, moments: str, residual: float | None, version: str
) -> Block:
    columns = {
        "weights_sha256": [weights],
        "cursor": [0],
        "uri": [blob.uri],
        "bytes": [blob.bytes],
        "sha256": [blob.sha256],
        "moments": [moments],
        "moments_residual": [residual],
    }
    made_from = expected_fingerprint(run.spec, run.training, step)
    return Block(Cell("checkpoints", run.spec.run, step), columns, made_from, version)
