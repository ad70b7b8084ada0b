"""Which checkpoints of a run there should be, and the order of its examples; and what each would be made from now."""

from collections.abc import Sequence

from mech_pipeline.pipeline.cells import Cell, stored_versions
from mech_pipeline.pipeline.checkpoints import current_checkpoints, expected_fingerprint, training_fingerprint
from mech_pipeline.pipeline.found import FoundRun
from mech_pipeline.pipeline.grid import kept_steps, last_step
from mech_pipeline.pipeline.look import among, answer_of
from mech_pipeline.spec.fingerprint import fingerprint
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.store.store import Store


def wanted(run: FoundRun) -> dict[Cell, str]:
    """Fingerprints of all checkpoints that the run keeps, and of the order in which it sees its examples."""
    cells = {
        Cell("checkpoints", run.spec.run, step): expected_fingerprint(run.spec, run.training, step)
        for step in kept_steps(run.store, run.spec)
    }
    if run.spec.imported is not None and run.spec.imported.batches is None:
        return cells
    return cells | {Cell("batches", run.spec.run): batches_fingerprint(run.store, run.training, run.spec)}


def pending(run: FoundRun) -> list[Cell]:
    """The checkpoints that must be made; where none, the order if that is not stored."""
    if missing := missing_checkpoints(run.store, run.spec):
        return [Cell("checkpoints", run.spec.run, step) for step in missing]
    return [] if batches_are_current(run.store, run.spec) else [Cell("batches", run.spec.run)]


def missing_checkpoints(store: Store, spec: RunSpec) -> list[int]:
    """Steps to be kept without a current checkpoint, or without the metrics of the updates that lead to it."""
    present = current_checkpoints(store, spec)
    steps = list(kept_steps(store, spec))
    if not present or spec.imported is not None:
        return [step for step in steps if step not in present]
    measured = _measured_updates(store, spec.run)
    before = dict(zip(steps[1:], steps, strict=False))
    return [
        step for step in steps if step not in present or not measured.issuperset(range(before.get(step, step), step))
    ]


def _measured_updates(store: Store, run: str) -> set[int]:
    return answer_of(store, "measured updates", run, lambda runs: _read_measured(store, runs))


def _read_measured(store: Store, runs: Sequence[str]) -> dict[str, set[int]]:
    with store.reading("training_metrics", of=runs) as connection:
        rows = connection.execute(
            f"select run, list(step) from training_metrics where {among('run', runs)} and metric = 'loss_nats' group by run",
            list(runs),
        ).fetchall()
    found = dict(rows)
    return {run: set(found.get(run, ())) for run in runs}


def batches_are_current(store: Store, spec: RunSpec) -> bool:
    """Whether the table `batches` holds this run's order; false while its tokens are not made."""
    if spec.imported is not None and spec.imported.batches is None:
        return True  # nobody knows them
    training = training_fingerprint(store, spec)
    stored = stored_versions(store, "batches", spec.run).get(Cell("batches", spec.run))
    return (
        training is not None
        and stored is not None
        and stored.input_fingerprint == batches_fingerprint(store, training, spec)
    )


def batches_fingerprint(store: Store, training: str, spec: RunSpec) -> str:
    """What the order is made from."""
    return fingerprint(training, "batches", last_step(store, spec))
