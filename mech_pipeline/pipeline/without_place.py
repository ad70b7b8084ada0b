"""A run from outside whose place is not there, as a store describes it that holds its states (out of a whole bundle)."""

from mech_pipeline.pipeline.checkpoints import checkpoint_blobs, is_pointer
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.store.store import Store

_FILLED_IN = {"home", "found", "updates", "batches_sha256"}


def spec_without_place(store: Store, spec: RunSpec) -> RunSpec | None:
    """The run with the revisions, model and batches that it had when it was imported; none: the store does not hold it.

    Args:
        spec: as its experiment file describes it.
    """
    with store.reading("runs") as connection:
        rows = connection.execute("select spec from runs where run = ?", [spec.run]).fetchall()
    if not rows or spec.imported is None:
        return None
    stored = RunSpec.model_validate_json(rows[0][0])
    if stored.imported is None:
        return None
    asked, known = (each.model_dump(exclude=_FILLED_IN) for each in (spec.imported, stored.imported))
    blobs = checkpoint_blobs(store, spec.run)
    there = all(step in blobs and not is_pointer(blobs[step]) for step in stored.imported.found_steps)
    if asked != known or not there:
        return None
    counted = {"steps": stored.training.steps, "batch": stored.training.batch}
    return spec.model_copy(
        update={
            "imported": stored.imported.at(spec.home),
            "model": stored.model.at(spec.home),
            "training": spec.training.model_copy(update=counted),
            "checkpoints": stored.checkpoints,
        }
    )
