"""The frame of stages that compute step by step: what is current is told first, and each step when its rows are stored."""

from collections.abc import Callable, Iterable, Iterator

from mech_pipeline.pipeline.cells import Cell, steps_of


def late_steps(wanted: Iterable[Cell], pending: Iterable[Cell], on_steps: Callable[[list[int]], None]) -> Iterator[int]:
    """The steps with something to compute, rising; the caller stores a step's rows before it asks for the next.

    Args:
        on_steps: called with steps whose rows are stored: the current ones before the first is computed, then each.
    """
    late = steps_of(pending)
    if current := sorted({*steps_of(wanted)} - {*late}):
        on_steps(current)
    for step in late:
        yield step
        on_steps([step])
