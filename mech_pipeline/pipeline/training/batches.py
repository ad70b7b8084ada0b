"""The table `batches`: which examples each update saw. A pure function of seed and step, kept for SQL."""

from mech_pipeline.pipeline.cells import Block, Cell, stored_versions, write
from mech_pipeline.pipeline.checkpoints import TRAINING_VERSION, training_fingerprint
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.spec.fingerprint import fingerprint
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.store.store import Store


def batches_are_current(store: Store, spec: RunSpec) -> bool:
    """Whether the table `batches` holds this run's order; false while its tokens are not made."""
    training = training_fingerprint(store, spec)
    stored = stored_versions(store, "batches", spec.run).get(Cell("batches", spec.run))
    return (
        training is not None and stored is not None and stored.input_fingerprint == batches_fingerprint(training, spec)
    )


def batches_fingerprint(training: str, spec: RunSpec) -> str:
    """What the order is made from."""
    return fingerprint(training, "batches", spec.training.steps)


def write_batches(store: Store, spec: RunSpec) -> None:
    """The table of which examples each update saw; a pure function of seed and step, kept for SQL."""
    if batches_are_current(store, spec):
        return
    run = OpenRun(store, spec)
    made_from = batches_fingerprint(run.training, spec)
    steps = range(spec.training.steps)
    ids = [name for step in steps for name in run.tokens.example_ids[run.trainer.batch(step).numpy()].tolist()]
    batch = spec.training.batch
    columns = {
        "update_step": [step for step in steps for _ in range(batch)],
        "position": list(range(batch)) * len(steps),
        "example_id": ids,
    }
    write(store, [Block(Cell("batches", spec.run), columns, made_from)], TRAINING_VERSION)
