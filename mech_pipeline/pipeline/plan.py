"""What is to be done for a run, decided by looking: which stages are ready and not current.

A stage is ready when everything it reads is current. Asking again after each stage gives early cut-off: a stage that
changed nothing leaves nothing to do after it.
"""

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from mech_pipeline.pipeline.analysis import analysis, circuits, formation, neurons
from mech_pipeline.pipeline.grid import kept_steps
from mech_pipeline.pipeline.influence import influence
from mech_pipeline.pipeline.ledger import ledger
from mech_pipeline.pipeline.retraining import lds
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.pipeline.run_row import run_row_fingerprint
from mech_pipeline.pipeline.tokens import tokens
from mech_pipeline.pipeline.training import batches, training
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.store.care.maintain import crowded_tables
from mech_pipeline.store.currency import Cell, one_look, outdated, stored_versions
from mech_pipeline.store.store import Store


@runtime_checkable
class _Stage(Protocol):
    """A module of per-step cells."""

    def wanted(self, run: OpenRun, steps: Iterable[int]) -> dict[Cell, str]: ...

    def pending(self, run: OpenRun, steps: Iterable[int]) -> list[Cell]: ...


Waiting = dict[Cell, str]
"""Cells that are not current, with what they would be made from now."""


def ready_stages(store: Store, spec: RunSpec, corpus_sha256: str) -> dict[str, int]:
    """Stages that can run now and have something to do, with the number of cells (checkpoints for training)."""
    return {stage: len(cells) for stage, cells in ready_cells(store, spec, corpus_sha256).items()}


def ready_cells(store: Store, spec: RunSpec, corpus_sha256: str, *, live: bool = False) -> dict[str, Waiting]:
    """Stages that can run now, with the cells that wait for them.

    Args:
        live: beside training, also analysis of the checkpoints that are there already.
    """
    with one_look():
        return _ready_cells(store, spec, corpus_sha256, live)


def _ready_cells(store: Store, spec: RunSpec, corpus_sha256: str, live: bool) -> dict[str, Waiting]:
    described = _description(store, spec, corpus_sha256)
    if described:
        return {"spec": described}
    missing = training.missing_checkpoints(store, spec)
    if missing or not batches.batches_are_current(store, spec):
        run = OpenRun(store, spec)
        to_train = {(step, ""): run.training for step in missing or [spec.training.steps]}
        seen = _analysis(run, run.checkpoints) if live and run.checkpoints else {}
        return {"training": to_train} | ({"analysis": seen} if seen else {})
    run = OpenRun(store, spec)
    ready = {
        "analysis": _analysis(run, kept_steps(store, spec)),
        "circuits": _of(circuits, run, run.planned),
        "neurons": _of(neurons, run, run.planned),
        "ledger": _of(ledger, run, run.planned) if spec.accounts else {},
    }
    if not ready["analysis"]:
        ready |= _after_analysis(run)
    ready = {stage: cells for stage, cells in ready.items() if cells}
    if not ready and (crowded := crowded_tables(store, spec.run)):
        return {"compaction": {(-1, name): "crowded" for name in crowded}}
    return ready


def _description(store: Store, spec: RunSpec, corpus_sha256: str) -> Waiting:
    """The run's row and its tokens."""
    row, expected = stored_versions(store, "runs", spec.run).get((-1, "")), run_row_fingerprint(spec, corpus_sha256)
    described = {} if row is not None and row.input_fingerprint == expected else {(-1, "row"): expected}
    made = tokens.wanted(spec, corpus_sha256)
    return described | {cell: made[cell] for cell in tokens.missing_tokens(store, spec, corpus_sha256)}


def _analysis(run: OpenRun, steps: Iterable[int]) -> Waiting:
    """Cells of all three tables."""
    steps = list(steps)
    waiting: Waiting = {}
    for table in analysis.OUTPUTS:
        cells = analysis.wanted(run, table, steps)
        stale = outdated(stored_versions(run.store, table, run.spec.run), cells)
        waiting |= {(step, f"{table} {item}"): cells[step, item] for step, item in stale}
    return waiting


def _of(stage: _Stage, run: OpenRun, steps: Iterable[int]) -> Waiting:
    steps = list(steps)
    if not steps:
        return {}
    cells = stage.wanted(run, steps)
    return {cell: cells[cell] for cell in stage.pending(run, steps)}


def _after_analysis(run: OpenRun) -> dict[str, Waiting]:
    """Formation, influence once the steps it aims at are known, and retraining once there is influence to compare with."""
    store, spec = run.store, run.spec
    events = formation.wanted(store, spec)
    if waiting := outdated(stored_versions(store, "formation", spec.run), events):
        return {"formation": {cell: events[cell] for cell in waiting}}
    if unknown := _of(influence, run, influence.target_steps(run)):
        return {"influence": unknown}
    return {"retraining": lds.pending_cells(run)}
