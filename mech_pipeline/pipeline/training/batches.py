"""The table `batches`: which examples each update saw. A pure function of seed and step, kept for SQL."""

from mech_pipeline.pipeline.checkpoints import TRAINING_VERSION, provenance_columns, training_fingerprint
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.spec.fingerprint import fingerprint
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.store.currency import stored_versions
from mech_pipeline.store.rows import content_version
from mech_pipeline.store.store import Store
from mech_pipeline.store.tables.all import TABLES


def batches_are_current(store: Store, spec: RunSpec) -> bool:
    """Whether the table `batches` holds this run's order; false while its tokens are not made."""
    training = training_fingerprint(store, spec)
    stored = stored_versions(store, "batches", spec.run).get((-1, ""))
    return (
        training is not None and stored is not None and stored.input_fingerprint == _batches_fingerprint(training, spec)
    )


def _batches_fingerprint(training: str, spec: RunSpec) -> str:
    return fingerprint(training, "batches", spec.training.steps)


def write_batches(store: Store, spec: RunSpec) -> None:
    """The table of which examples each update saw; a pure function of seed and step, kept for SQL."""
    if batches_are_current(store, spec):
        return
    run = OpenRun(store, spec)
    made_from = _batches_fingerprint(run.training, spec)
    steps = range(spec.training.steps)
    ids = [name for step in steps for name in run.tokens.example_ids[run.trainer.batch(step).numpy()].tolist()]
    batch = spec.training.batch
    columns = {
        "run": [spec.run] * len(ids),
        "update_step": [step for step in steps for _ in range(batch)],
        "position": list(range(batch)) * len(steps),
        "example_id": ids,
    }
    version = content_version(TABLES["batches"], columns)
    store.write(
        "batches",
        columns | provenance_columns(len(ids), made_from, version),
        replace={"run": [spec.run]},
        code_version=TRAINING_VERSION,
    )
