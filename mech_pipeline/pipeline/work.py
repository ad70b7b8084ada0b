"""What is to be done for the runs of a store, cut into batches that a scheduler can hand out.

The store decides: a batch is what is ready and not current, and its identity is the hash of the fingerprints of its cells.
The same batch twice is therefore the same work, and a batch that failed is not worth a second try until something changed.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from mech_pipeline.pipeline.cells import steps_of
from mech_pipeline.pipeline.grid import kept_steps
from mech_pipeline.pipeline.plan import Elsewhere, ready_cells
from mech_pipeline.pipeline.stage import Cells, Scope
from mech_pipeline.pipeline.stages import stage_of
from mech_pipeline.spec.fingerprint import fingerprint
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.store.store import Store

BATCH_STEPS = 64


@dataclass(frozen=True)
class Work:
    """One batch of one stage of a run.

    Attributes:
        steps: of the cells, rising; empty: the stage is of the whole run.
        cells: how many are computed.
        identity: hash of their fingerprints.
    """

    run: str
    stage: str
    steps: tuple[int, ...]
    cells: int
    identity: str


def stored_specs(store: Store, runs: Sequence[str]) -> list[RunSpec]:
    """Runs as they were last asked for; those that the store does not know are left out."""
    return _specs(store, "run in (select unnest(?::varchar[]))", list(runs))


def all_specs(store: Store) -> list[RunSpec]:
    """Every run that was ever launched."""
    with store.reading("runs") as connection:
        rows = connection.execute("select spec from runs order by run").fetchall()
    return [RunSpec.model_validate_json(spec) for (spec,) in rows]


def started_specs(store: Store) -> list[RunSpec]:
    """Runs of which something was trained."""
    return _specs(store, "status in (select unnest(?::varchar[]))", ["training", "held", "complete"])


def _specs(store: Store, condition: str, values: list[str]) -> list[RunSpec]:
    with store.reading("runs") as connection:
        rows = connection.execute(f"select spec from runs where {condition} order by run", [values]).fetchall()
    return [RunSpec.model_validate_json(spec) for (spec,) in rows]


def work_of(store: Store, spec: RunSpec, corpus_sha256: str, elsewhere: Elsewhere = lambda run: None) -> list[Work]:
    """All batches of a run that could be started now, also beside its training.

    Args:
        elsewhere: gives spec and corpus of other runs whose results it reads.
    """
    ready = ready_cells(store, spec, corpus_sha256, live=True, elsewhere=elsewhere)
    return [work for stage, cells in ready.items() for work in _batches(store, spec, stage, cells)]


def _batches(store: Store, spec: RunSpec, stage: str, cells: Cells) -> Iterator[Work]:
    scope = stage_of(stage).scope
    if scope == Scope.CHECKPOINT:
        for steps in consecutive(steps_of(cells), kept_steps(store, spec)):
            yield _work(
                spec, stage, steps, {cell: made_from for cell, made_from in cells.items() if cell.step in steps}
            )
    else:
        yield _work(spec, stage, steps_of(cells) if scope == Scope.TARGET else (), cells)


def _work(spec: RunSpec, stage: str, steps: Iterable[int], cells: Cells) -> Work:
    made_from = [[cell.table, cell.step, cell.item, cell.method, cells[cell]] for cell in sorted(cells)]
    return Work(spec.run, stage, tuple(steps), len(cells), fingerprint(spec.run, stage, made_from))


def consecutive(steps: Sequence[int], kept: Sequence[int], most: int = BATCH_STEPS) -> list[list[int]]:
    """Steps cut into batches without a kept step between two of them that is not to be done.

    Args:
        steps: some of `kept`, rising.
        kept: all steps of the run, rising.

    >>> consecutive([0, 10, 30], [0, 10, 20, 30])
    [[0, 10], [30]]
    """
    place = {step: at for at, step in enumerate(kept)}
    batches: list[list[int]] = []
    for step in steps:
        if batches and len(batches[-1]) < most and place[step] == place[batches[-1][-1]] + 1:
            batches[-1].append(step)
        else:
            batches.append([step])
    return batches
