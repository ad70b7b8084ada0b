"""Analysis of a checkpoint, loaded once: mechanism values, head scores, gradient tensors."""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from mech_pipeline.pipeline.analysis import gradients, head_scores, values
from mech_pipeline.pipeline.analysis.loaded import Loaded
from mech_pipeline.pipeline.analysis.wanted import code_version, pending, wanted
from mech_pipeline.pipeline.cells import Block, Cell, write
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.training.device import computing

_FLUSH_STEPS = 24


class _Measured(Protocol):
    """A module that fills one table, checkpoint by checkpoint."""

    TABLE: str

    def compute(self, at: Loaded, cells: Sequence[Cell], made_from: dict[Cell, str]) -> list[Block]: ...


_TABLES: dict[str, _Measured] = {module.TABLE: module for module in (values, head_scores, gradients)}


def analyse(
    run: OpenRun, tables: Iterable[str], steps: Iterable[int], on_steps: Callable[[list[int]], None] = lambda done: None
) -> int:
    """Computes what is pending and writes it in batches of checkpoints; returns the number of cells computed.

    Args:
        on_steps: called with the steps whose rows have just been published (current ones first).
    """
    tables, steps = list(tables), list(steps)
    todo = [cell for cells in pending(run, tables, steps).values() for cell in cells]
    late = {cell.step for cell in todo}
    if current := [step for step in steps if step not in late]:
        on_steps(current)
    work = [step for step in steps if step in late]
    with computing(run.spec.training):
        for begin in range(0, len(work), _FLUSH_STEPS):
            chunk = work[begin : begin + _FLUSH_STEPS]
            _write(run, tables, [block for step in chunk for block in _computed(run, tables, step, todo)])
            on_steps(chunk)
    return len(todo)


def _computed(run: OpenRun, tables: Sequence[str], step: int, todo: Sequence[Cell]) -> list[Block]:
    """The pending cells of one checkpoint."""
    at, blocks = Loaded(run, step), list[Block]()
    for table in tables:
        if cells := [cell for cell in todo if cell.table == table and cell.step == step]:
            blocks += _TABLES[table].compute(at, cells, wanted(run, table, [step]))
    return blocks


def _write(run: OpenRun, tables: Sequence[str], blocks: Sequence[Block]) -> None:
    """Publishes the cells of some checkpoints, table by table."""
    for table in tables:
        if own := [block for block in blocks if block.cell.table == table]:
            write(run.store, own, code_version(table))
