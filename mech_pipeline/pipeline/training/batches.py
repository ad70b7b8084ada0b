"""The table `batches`: which examples each update saw. A pure function of seed and step, kept for SQL."""

from mech_pipeline.pipeline.cells import Block, Cell, write
from mech_pipeline.pipeline.checkpoints import TRAINING_VERSION
from mech_pipeline.pipeline.grid import last_step
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.pipeline.training.wanted import batches_are_current, batches_fingerprint
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.store.store import Store


def write_batches(store: Store, spec: RunSpec) -> None:
    """The table of which examples each update saw; a pure function of seed and step, kept for SQL."""
    if batches_are_current(store, spec):
        return
    run = OpenRun(store, spec)
    made_from = batches_fingerprint(store, run.training, spec)
    known = None if spec.imported is None else spec.imported.updates
    steps = range(last_step(store, spec)) if known is None else range(*known)
    ids = [name for step in steps for name in run.tokens.example_ids[run.trainer.batch(step).numpy()].tolist()]
    batch = spec.training.batch
    columns = {
        "update_step": [step for step in steps for _ in range(batch)],
        "position": list(range(batch)) * len(steps),
        "example_id": ids,
    }
    write(store, [Block(Cell("batches", spec.run), columns, made_from)], TRAINING_VERSION)
