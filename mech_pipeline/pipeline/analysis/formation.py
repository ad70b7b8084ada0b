"""Formation of a run: one row per event, from the values at every planned checkpoint."""

from collections.abc import Sequence

from mech_pipeline.errors import MechError
from mech_pipeline.formation.events import formation_step
from mech_pipeline.pipeline.cells import Block, Cell, combined_version, pending_cells, stored_versions, write
from mech_pipeline.pipeline.grid import planned_steps
from mech_pipeline.pipeline.look import among, answer_of
from mech_pipeline.spec.analysis import Event
from mech_pipeline.spec.fingerprint import fingerprint
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.store.store import Store
from mech_pipeline.store.tables.all import TABLES

CODE_VERSION = "1"


def _source(event: Event) -> tuple[str, str]:
    """(table, item) an event reads."""
    if event.mechanism is not None:
        return "mechanism_values", event.mechanism
    assert event.detector is not None, "an event watches a mechanism or a detector"
    return "head_scores", event.detector


def wanted(store: Store, spec: RunSpec) -> dict[Cell, str]:
    """Fingerprint of each event, from the versions of the values it reads.

    Raises:
        MechError: a planned checkpoint has no value yet.
    """
    cells: dict[Cell, str] = {}
    planned = planned_steps(store, spec)
    for event in spec.formation:
        table, item = _source(event)
        stored = stored_versions(store, table, spec.run)
        read = {step: Cell(table, spec.run, step, item) for step in planned}
        missing = [step for step, cell in read.items() if cell not in stored]
        if missing:
            raise MechError(
                f"formation of {event.signal} in run {spec.run}: {len(missing)} checkpoints have no value, first {missing[0]}",
                f"materialize `{table}` for the run, or `mech run` its experiment",
            )
        versions = combined_version(stored[cell] for cell in read.values())
        cell = Cell("formation", spec.run, item=event.signal)
        cells[cell] = fingerprint("formation", CODE_VERSION, event, versions, list(planned))
    return cells


def compute_formation(store: Store, spec: RunSpec) -> int:
    """Computes the events that are not current; returns their number."""
    cells = wanted(store, spec)
    todo = pending_cells(store, cells)
    for event in spec.formation:
        cell = Cell("formation", spec.run, item=event.signal)
        if cell not in todo:
            continue
        values = _values(store, spec, event)
        grid = [step for step in spec.checkpoint_steps() if step in values]
        between = {step: value for step, value in values.items() if step not in grid}
        found = formation_step(
            grid, [values[step] for step in grid], event.threshold, event.sustain, between, event.after
        )
        columns = {
            "step": [found.step],
            "lower": [found.lower],
            "upper": [found.step],
            "threshold": [event.threshold],
            "sustain": [event.sustain],
            "censored": [found.censored],
        }
        write(store, [Block(cell, columns, cells[cell])], CODE_VERSION)
    return len(todo)


def stored_formation(store: Store, run: str) -> dict[str, int | None]:
    """Formation step of each event of a run (none: censored) as the store has it."""
    return answer_of(store, "formation steps", run, lambda runs: _read_formation(store, runs))


def _read_formation(store: Store, runs: Sequence[str]) -> dict[str, dict[str, int | None]]:
    with store.reading("formation", of=runs) as connection:
        rows = connection.execute(
            f"select run, mechanism, step from formation where {among('run', runs)}", list(runs)
        ).fetchall()
    return {name: {signal: step for run, signal, step in rows if run == name} for name in runs}


def influence_step(store: Store, spec: RunSpec) -> int | None:
    """Target step of the run's influence: the formation step of its first event; none if it did not form."""
    return stored_formation(store, spec.run).get(spec.formation[0].signal)


def _values(store: Store, spec: RunSpec, event: Event) -> dict[int, float]:
    """Value at every planned checkpoint; of a detector, the best head's."""
    table, item = _source(event)
    column = TABLES[table].item
    with store.reading(table, of=[spec.run]) as connection:
        rows = connection.execute(
            f"select step, max(value) from {table} where run = ? and {column} = ? and list_contains(?, step) group by 1",
            [spec.run, item, list(planned_steps(store, spec))],
        ).fetchall()
    return dict(rows)
