"""States of runs that were trained elsewhere, as files of a bundle, in place of the lines that say where they are.

Rows of `checkpoints` then name these files, as they do of runs that were trained here. A store that the bundle is imported into
holds the states, so runs are continued and replayed from it as where they came from, and their own place need not be there.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mech_pipeline.pipeline.checkpoints import checkpoint_blobs, is_pointer
from mech_pipeline.pipeline.found import FoundRun
from mech_pipeline.progress import Emit, Progress
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.store.blobs import Blob
from mech_pipeline.store.store import Store

Brought = Mapping[str, Blob]
"""The file of a state, by the name of the file that says where it is."""


def bring_along(store: Store, imported: Sequence[RunSpec], folder: Path, emit: Emit) -> Brought:
    """Writes the states that the store names and does not hold: weights and moments in fp32, as `mech state` names them.

    Raises:
        MechError: a revision is not there, or not what it was when it was imported.
    """
    brought: dict[str, Blob] = {}
    for spec in imported:
        run, blobs = FoundRun(store, spec), checkpoint_blobs(store, spec.run)
        steps = [step for step in run.checkpoints if is_pointer(blobs[step])]
        progress = Progress(emit, f"states of {spec.run}", len(steps), "revisions")
        for done, step in enumerate(steps, start=1):
            brought[blobs[step].uri] = _written(run.content(step)[0], f"run={spec.run}/step={step:08d}", folder)
            progress(done)
    return brought


def _written(content: bytes, place: str, folder: Path) -> Blob:
    """Under a name that follows from the content: the same states make the same bundle."""
    sha256 = hashlib.sha256(content).hexdigest()
    blob = Blob(f"blobs/checkpoints/{place}/{sha256[:16]}-{sha256[16:24]}/state.safetensors", len(content), sha256)
    path = folder / blob.uri
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return blob


def name_states(table: Path, brought: Brought) -> None:
    """Lets the rows of `checkpoints` in a Parquet file name the states themselves."""
    rows = pq.read_table(table, partitioning=None)
    named = rows["uri"].to_pylist()
    for column in ("uri", "bytes", "sha256"):
        told = zip(named, rows[column].to_pylist(), strict=True)
        values = [getattr(brought[uri], column) if uri in brought else value for uri, value in told]
        field = rows.schema.field(column)
        rows = rows.set_column(rows.column_names.index(column), field, pa.array(values, field.type))
    pq.write_table(rows, table, compression="zstd")
