"""Stored sketches of gradients: made once at the checkpoints before a target, read again for every later question.

A cell is one checkpoint: one file with the sketches of all examples up to the next checkpoint that was planned. Asking for
another mechanism, or another target, makes none of them again.
"""

from collections.abc import Sequence
from itertools import pairwise

from safetensors.torch import load, save

from mech_pipeline.attribution.estimators.sketched_scores import sketch_window
from mech_pipeline.attribution.estimators.sketches import Sketcher, Sketches
from mech_pipeline.pipeline.checkpoints import provenance_columns
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.progress import Emit, Progress
from mech_pipeline.spec.fingerprint import fingerprint
from mech_pipeline.store.blobs import Blob, is_there

CODE_VERSION = "1"
_NEXT = "`mech verify --repair`, then run again"


def sketcher_of(run: OpenRun) -> Sketcher:
    """The run's sketcher; its seed is the run's."""
    flat = run.trainer.flat
    return Sketcher(len(flat.vector), run.spec.influence.sketch_size, run.spec.seed, device=flat.vector.device)


def make_sketches(run: OpenRun, sketcher: Sketcher, checkpoints: Sequence[int], emit: Emit) -> dict[int, Blob]:
    """The files of the sketches made at each checkpoint but the last; what is not stored yet is made and stored at once."""
    windows = list(pairwise(checkpoints))
    found = _stored(run, windows)
    missing = [window for window in windows if window[0] not in found]
    progress = Progress(
        emit, f"sketching gradients of {run.spec.run}", sum(end - begin for begin, end in missing), "updates"
    )
    done = 0
    for begin, end in missing:
        found[begin] = _put(run, end, sketch_window(run.trainer, sketcher, run.state(begin), end))
        done += end - begin
        progress(done)
    return found


def read_sketches(run: OpenRun, step: int, blob: Blob) -> Sketches:
    """The sketches made at a checkpoint.

    Raises:
        MechError: the file is damaged.
    """
    tensors = load(run.store.get_blob(blob, f"sketches of run {run.spec.run} at step {step}", _NEXT))
    device = run.trainer.flat.vector.device
    named = {name: tensors[name].to(device) for name in ("values", "scales", "norms")}
    return Sketches(step, tensors["examples"], **named)


def _made_from(run: OpenRun, begin: int, end: int) -> str:
    size = run.spec.influence.sketch_size
    return fingerprint("sketches", CODE_VERSION, run.training, run.checkpoint_version(begin), end, size)


def _stored(run: OpenRun, windows: Sequence[tuple[int, int]]) -> dict[int, Blob]:
    """By first update, the files that were made from the same and are whole."""
    wanted = {_made_from(run, begin, end) for begin, end in windows}
    with run.store.reading("sketches") as connection:
        rows = connection.execute(
            "select step, input_fingerprint, uri, bytes, sha256 from sketches where run = ?", [run.spec.run]
        ).fetchall()
    blobs = {step: Blob(*blob) for step, made_from, *blob in rows if made_from in wanted}
    return {step: blob for step, blob in blobs.items() if is_there(run.store.files, blob)}


def _put(run: OpenRun, end: int, made: Sketches) -> Blob:
    tensors = {name: getattr(made, name) for name in ("examples", "values", "scales", "norms")}
    content = save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()})
    blob = run.store.put_blob(f"sketches/run={run.spec.run}/step={made.step:08d}", "sketches.safetensors", content)
    row = {
        "run": [run.spec.run],
        "step": [made.step],
        "until": [end],
        "examples": [len(made.examples)],
        "size": [made.values.shape[1]],
        "uri": [blob.uri],
        "bytes": [blob.bytes],
        "sha256": [blob.sha256],
        **provenance_columns(1, _made_from(run, made.step, end), blob.sha256),
    }
    run.store.write("sketches", row, replace={"run": [run.spec.run], "step": [made.step]}, code_version=CODE_VERSION)
    return blob
