"""The run's row in the table `runs`: what it is, how far it is, and on what it was made."""

from mech_pipeline.errors import MechError, did_you_mean
from mech_pipeline.pipeline.cells import Cell, stored_versions
from mech_pipeline.pipeline.checkpoints import TRAINING_VERSION, current_checkpoints, provenance_columns
from mech_pipeline.pipeline.holds import held_at
from mech_pipeline.pipeline.training.wanted import missing_checkpoints
from mech_pipeline.provenance import device, versions_json
from mech_pipeline.spec.fingerprint import fingerprint
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.store.store import Store


def write_run_row(store: Store, spec: RunSpec, corpus_sha256: str, status: str) -> str:
    """Writes the run's row in `runs`; returns its data version: what is trained, thresholds and the like aside.

    Once there are checkpoints, device and versions stay those that made them.
    """
    version = fingerprint("run", spec.tokens_slice(), spec.training_slice(), corpus_sha256)
    made_with = _made_with(store, spec) if current_checkpoints(store, spec) else None
    used_device, used_versions = made_with or (device(spec.training.device, spec.training.threads), versions_json())
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
        "caveats": ["; ".join(spec.caveats())],
        **provenance_columns(1, run_row_fingerprint(spec, corpus_sha256), version),
    }
    store.write("runs", rows, replace={"run": [spec.run]}, code_version=TRAINING_VERSION)
    return version


def describe_run(store: Store, spec: RunSpec, corpus_sha256: str) -> str:
    """Writes the run's row where it is not current; returns its data version."""
    stored = stored_versions(store, "runs", spec.run).get(Cell("runs", spec.run))
    if stored is not None and stored.input_fingerprint == run_row_fingerprint(spec, corpus_sha256):
        return stored.data_version
    return write_run_row(store, spec, corpus_sha256, standing_of(store, spec))


def standing_of(store: Store, spec: RunSpec) -> str:
    """The status of a run that nobody trains now: planned, held or complete."""
    if missing_checkpoints(store, spec):
        return "planned"
    return "complete" if held_at(store, spec) is None else "held"


def _made_with(store: Store, spec: RunSpec) -> tuple[str, str] | None:
    with store.reading("runs") as connection:
        rows = connection.execute("select device, versions from runs where run = ?", [spec.run]).fetchall()
    return rows[0] if rows else None


def run_row_fingerprint(spec: RunSpec, corpus_sha256: str) -> str:
    """What a row of `runs` is made from."""
    return fingerprint("run_spec", "1", spec.fingerprint(corpus_sha256))


def mark_status(store: Store, spec: RunSpec, status: str) -> None:
    """Updates the run's status if it differs, and what it is made on as long as nothing was made.

    Raises:
        MechError: the run was never registered.
    """
    with store.reading("runs") as connection:
        rows = connection.sql("select * from runs where run = ?", params=[spec.run]).pl().to_dicts()
    if not rows:
        raise MechError(f"run {spec.run} is not in the store", "materialize `run_spec` for it first")
    if rows[0]["status"] == status:
        return
    changed = rows[0] | {"status": status}
    if not current_checkpoints(store, spec):
        changed |= {"device": device(spec.training.device, spec.training.threads), "versions": versions_json()}
    columns = {name: [value] for name, value in changed.items()}
    store.write("runs", columns, replace={"run": [spec.run]}, code_version=TRAINING_VERSION)


def stored_spec(store: Store, run: str) -> RunSpec:
    """The resolved spec of a run, as the store has it.

    Raises:
        MechError: the run was never registered.
    """
    with store.reading("runs") as connection:
        rows = connection.execute("select spec from runs where run = ?", [run]).fetchall()
        known = [each for (each,) in connection.execute("select run from runs").fetchall()] if not rows else []
    if not rows:
        step = "`mech run` its experiment, or materialize `run_spec`"
        raise MechError(f"run {run} is unknown to the store", f"{did_you_mean(run, known)}{step}")
    return RunSpec.model_validate_json(rows[0][0])
