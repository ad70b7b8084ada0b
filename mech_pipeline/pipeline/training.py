"""Training: fills the planned checkpoints, resuming from the nearest one that is there.

A fresh run, a resume after kill -9, a longer run and a denser plan are the same act: start at the last checkpoint
before the first missing one, train until the last missing one. Replayed states that are already kept are compared
with their hashes on the way.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mech_pipeline.pipeline.run import (
    TRAINING_VERSION,
    OpenRun,
    checkpoint_fingerprint,
    current_checkpoints,
    provenance_columns,
    training_fingerprint,
)
from mech_pipeline.progress import Progress, Report, ignore_progress
from mech_pipeline.provenance import device, versions_json
from mech_pipeline.spec.fingerprint import fingerprint
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.store.catalog import connect
from mech_pipeline.store.currency import stored_versions
from mech_pipeline.store.registration import registration
from mech_pipeline.store.rows import content_version
from mech_pipeline.store.store import Store
from mech_pipeline.store.tables import TABLES
from mech_pipeline.training.checkpoints import pack_state, state_sha256, vector_sha256
from mech_pipeline.training.loop import Update, compute_threads
from mech_pipeline.training.optimizer import State


@dataclass(frozen=True)
class Saved:
    """A checkpoint that has just been published."""

    step: int
    data_version: str
    input_fingerprint: str
    loss: float | None


OnCheckpoint = Callable[[Saved], None]


def missing_checkpoints(store: Store, spec: RunSpec) -> list[int]:
    """Planned steps without a current checkpoint, or without the metrics of the updates that lead to it."""
    present = current_checkpoints(store, spec)
    if not present:
        return list(spec.checkpoint_steps())
    measured = _measured_updates(store, spec.run)
    steps = list(spec.checkpoint_steps())
    before = dict(zip(steps[1:], steps, strict=False))
    return [
        step for step in steps if step not in present or not measured.issuperset(range(before.get(step, step), step))
    ]


def _measured_updates(store: Store, run: str) -> set[int]:
    with connect(store.root, ["training_metrics"]) as connection:
        rows = connection.execute(
            "select step from training_metrics where run = ? and metric = 'loss_nats'", [run]
        ).fetchall()
    return {row[0] for row in rows}


def write_run_row(store: Store, spec: RunSpec, corpus_sha256: str, status: str) -> str:
    """Writes the run's row in `runs`; returns its data version: what is trained, thresholds and the like aside.

    Once there are checkpoints, device and versions stay those that made them.
    """
    version = fingerprint("run", spec.tokens_slice(), spec.training_slice(), corpus_sha256)
    made_with = _made_with(store, spec) if current_checkpoints(store, spec) else None
    used_device, used_versions = made_with or (device(spec.training.threads), versions_json())
    rows = {
        "run": [spec.run],
        "experiment": [spec.experiment],
        "arm": [spec.arm],
        "seed": [spec.seed],
        "fingerprint": [spec.fingerprint(corpus_sha256)],
        "spec": [spec.model_dump_json()],
        "status": [status],
        "device": [used_device],
        "versions": [used_versions],
        **provenance_columns(1, run_row_fingerprint(spec, corpus_sha256), version),
    }
    store.write("runs", rows, replace={"run": [spec.run]}, code_version=TRAINING_VERSION)
    return version


def _made_with(store: Store, spec: RunSpec) -> tuple[str, str] | None:
    with connect(store.root, ["runs"]) as connection:
        rows = connection.execute("select device, versions from runs where run = ?", [spec.run]).fetchall()
    return rows[0] if rows else None


def run_row_fingerprint(spec: RunSpec, corpus_sha256: str) -> str:
    """What a row of `runs` is made from."""
    return fingerprint("run_spec", "1", spec.fingerprint(corpus_sha256))


def mark_status(store: Store, spec: RunSpec, corpus_sha256: str, status: str) -> None:
    """Updates the run's status if it differs."""
    with connect(store.root, ["runs"]) as connection:
        rows = connection.execute("select status from runs where run = ?", [spec.run]).fetchall()
    if rows != [(status,)]:
        write_run_row(store, spec, corpus_sha256, status)


def train(
    store: Store,
    spec: RunSpec,
    on_checkpoint: OnCheckpoint = lambda saved: None,
    emit: Callable[[str], None] = lambda line: None,
) -> int:
    """Trains what is missing of a run; returns the number of checkpoints written.

    Raises:
        MechError: another process trains this run, training diverged, or a replayed state differs from the kept one.
    """
    with store.lock(f"training-{spec.run}", f"train run {spec.run}"), compute_threads(spec.training.threads):
        missing = missing_checkpoints(store, spec)
        if not missing:
            return 0
        run = OpenRun(store, spec)
        earlier = [step for step in run.checkpoints if step < missing[0]]
        state = run.state(earlier[-1]) if earlier else State.initial(run.trainer.flat.vector)
        if earlier:
            emit(f"train {spec.run}: found checkpoint {state.step}, continuing to {missing[-1]}")
        progress = Progress(emit, f"train {spec.run}", missing[-1], "updates", start=state.step)
        return _fill(run, state, set(missing), on_checkpoint, progress)


def _fill(
    run: OpenRun, state: State, missing: set[int], on_checkpoint: OnCheckpoint, report: Report = ignore_progress
) -> int:
    since_last: list[Update] = []
    if state.step in missing:
        on_checkpoint(_publish(run, state, since_last))
    for made in run.trainer.updates(state, max(missing)):
        since_last.append(made)
        step = made.after.step
        if step in run.checkpoints:
            run.verify(made.after)
        if step in missing:
            on_checkpoint(_publish(run, made.after, since_last))
        if step in missing or step in run.checkpoints:
            since_last = []
        report(step)
    return len(missing)


def _publish(run: OpenRun, state: State, updates: list[Update]) -> Saved:
    """Metrics, then the blob, then the row that makes the checkpoint exist: what is acknowledged is complete."""
    run_id = run.spec.run
    made_from = checkpoint_fingerprint(run.training, state.step)
    if updates:
        _write_metrics(run, updates, made_from)
    version = state_sha256(state)
    row: dict[str, list[Any]] = {
        "run": [run_id],
        "step": [state.step],
        "weights_sha256": [vector_sha256(state.theta)],
        "cursor": [state.step * run.spec.training.batch],
        **provenance_columns(1, made_from, version),
    }
    content = pack_state(state, run.trainer.flat, registration("checkpoints", row))
    blob = run.store.put_blob(f"checkpoints/run={run_id}/step={state.step:08d}", "state.safetensors", content)
    run.store.write(
        "checkpoints",
        row | {"uri": [blob.uri], "bytes": [blob.bytes], "sha256": [blob.sha256]},
        replace={"run": [run_id], "step": [state.step]},
        code_version=TRAINING_VERSION,
    )
    return Saved(state.step, version, made_from, updates[-1].loss if updates else None)


def _write_metrics(run: OpenRun, updates: list[Update], made_from: str) -> None:
    columns: dict[str, list[object]] = {"run": [], "step": [], "metric": [], "value": []}
    for made in updates:
        for metric, value in (
            ("loss_nats", made.loss),
            ("gradient_norm", made.gradient_norm),
            ("clip_factor", made.clip),
            ("learning_rate", made.learning_rate),
        ):
            for name, entry in zip(columns, (run.spec.run, made.before.step, metric, value), strict=True):
                columns[name].append(entry)
    version = content_version(TABLES["training_metrics"], columns)
    run.store.write(
        "training_metrics",
        columns | provenance_columns(len(columns["run"]), made_from, version),
        replace={"run": [run.spec.run], "step": [made.before.step for made in updates]},
        code_version=TRAINING_VERSION,
    )


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
