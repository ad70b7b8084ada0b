"""Ledger partitions: one account per window between checkpoints, written window by window from the last to the first."""

from collections.abc import Callable, Iterable

from mech_pipeline.pipeline.cells import steps_of
from mech_pipeline.pipeline.ledger.book import Book, OnBalance, Seam
from mech_pipeline.pipeline.ledger.wanted import memory_updates, pending, wanted
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.progress import Report, ignore_progress
from mech_pipeline.training.device import computing

_FLUSH_WINDOWS = 12


def compute_ledger(
    run: OpenRun,
    steps: Iterable[int],
    on_steps: Callable[[list[int]], None] = lambda done: None,
    report: Report = ignore_progress,
    on_balance: OnBalance = lambda rows: None,
) -> int:
    """Computes what is pending; returns the number of cells.

    Args:
        on_steps: called with the steps whose accounts have just been published (current ones first).
        report: called with the number of windows done.
        on_balance: called with the rows of `ledger_balance` before they are judged.

    Raises:
        LedgerImbalance: a window does not balance.
    """
    steps = sorted(set(steps) - {0})
    todo = pending(run, steps)
    waiting = set(steps_of(todo))
    current = [step for step in steps if step not in waiting]
    if current:
        on_steps(current)
    if not todo:
        return 0
    with computing(run.spec.training):
        book = Book(run, wanted(run, waiting), on_balance)
        reach = memory_updates(run.spec.optimizer)
        following: dict[str, Seam] = {}
        done = 0
        for begin, end in reversed(run.windows(max(run.checkpoints))):
            if not any(0 <= begin - step < reach or step == end for step in waiting):
                following = {}
                continue
            following = book.window(begin, end, following, write=end in waiting)
            done += end in waiting
            report(done)
            if len(book.unwritten) >= _FLUSH_WINDOWS:
                on_steps(book.flush())
        if book.unwritten:
            on_steps(book.flush())
    return len(todo)
