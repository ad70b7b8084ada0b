"""What is to be done for a run, decided by looking: which stages are ready and not current.

A stage is ready when everything it reads is current. Asking again after each stage gives early cut-off: a stage that
changed nothing leaves nothing to do after it.
"""

from mech_pipeline.pipeline import (
    analysis,
    batches,
    circuits,
    formation,
    influence,
    lds,
    ledger,
    neurons,
    tokens,
    training,
)
from mech_pipeline.pipeline.grid import kept_steps
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.pipeline.run_row import run_row_fingerprint
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.store.currency import one_look, outdated, stored_versions
from mech_pipeline.store.maintain import crowded_tables
from mech_pipeline.store.store import Store


def ready_stages(store: Store, spec: RunSpec, corpus_sha256: str) -> dict[str, int]:
    """Stages that can run now and have something to do, with the number of cells (checkpoints for training)."""
    with one_look():
        return _ready_stages(store, spec, corpus_sha256)


def _ready_stages(store: Store, spec: RunSpec, corpus_sha256: str) -> dict[str, int]:
    row = stored_versions(store, "runs", spec.run).get((-1, ""))
    stale_row = row is None or row.input_fingerprint != run_row_fingerprint(spec, corpus_sha256)
    missing_tokens = tokens.missing_tokens(store, spec, corpus_sha256)
    if stale_row or missing_tokens:
        return {"spec": int(stale_row) + len(missing_tokens)}
    missing = training.missing_checkpoints(store, spec)
    if missing or not batches.batches_are_current(store, spec):
        return {"training": max(1, len(missing))}
    run, steps = OpenRun(store, spec), kept_steps(store, spec)
    ready = {
        "analysis": sum(len(cells) for cells in analysis.pending(run, analysis.OUTPUTS, steps).values()),
        "circuits": len(circuits.pending(run, run.planned)),
        "neurons": len(neurons.pending(run, run.planned)),
        "ledger": len(ledger.pending(run, run.planned)) if spec.accounts else 0,
    }
    if not ready["analysis"]:
        ready |= _after_analysis(run)
    ready = {stage: count for stage, count in ready.items() if count}
    if not ready and (crowded := crowded_tables(store, spec.run)):
        return {"compaction": len(crowded)}
    return ready


def _after_analysis(run: OpenRun) -> dict[str, int]:
    """Formation, influence once the steps it aims at are known, and retraining once there is influence to compare with."""
    store, spec = run.store, run.spec
    waiting = outdated(stored_versions(store, "formation", spec.run), formation.wanted(store, spec))
    if waiting:
        return {"formation": len(waiting)}
    unknown = len(influence.pending(run, influence.target_steps(run)))
    return {"influence": unknown} if unknown else {"retraining": lds.pending_cells(run)}
