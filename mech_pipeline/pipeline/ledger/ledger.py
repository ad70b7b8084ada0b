"""Ledger partitions: one account per window between checkpoints, written window by window from the last to the first.

A window's `value_later` depends on the windows in which its momentum still acts: β^n ≥ 1e-8, 175 updates for β = 0.9.
They are replayed as well and are part of its fingerprint, so a run that grows longer updates its last accounts.
"""

import math
from collections.abc import Callable, Iterable

from mech_pipeline.attribution.per_example.component_labels import names_version
from mech_pipeline.mechanisms.registry import MECHANISMS
from mech_pipeline.pipeline.cells import Cell, pending_cells, steps_of
from mech_pipeline.pipeline.grid import probe_version
from mech_pipeline.pipeline.ledger.book import CODE_VERSION, Book, OnBalance
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.progress import Report, ignore_progress
from mech_pipeline.spec.analysis import WEIGHTS, Resolution
from mech_pipeline.spec.fingerprint import fingerprint
from mech_pipeline.spec.training import Optimizer
from mech_pipeline.training.device import computing
from mech_pipeline.training.update.optimizer import Vector

_FORGOTTEN = 1e-8
_FLUSH_WINDOWS = 12


def memory_updates(spec: Optimizer) -> int:
    """Updates after which a gradient's share in the momentum is below 1e-8."""
    beta = spec.momentum if spec.kind == "sgd" else spec.beta1
    return math.ceil(math.log(_FORGOTTEN) / math.log(beta)) if beta > 0 else 0


def wanted(run: OpenRun, steps: Iterable[int]) -> dict[Cell, str]:
    """Fingerprints of ledger cells (window end, mechanism). Step 0 has no updates before it, hence no account."""
    windows = {end: begin for begin, end in run.windows(max(run.checkpoints, default=0))}
    reach = memory_updates(run.spec.optimizer)
    planned = [step for step in run.planned if step in run.checkpoints]
    cells: dict[Cell, str] = {}
    for end in steps:
        if end == 0:
            continue
        run.checkpoint_version(end)
        states = [run.checkpoints[s].data_version for s in planned if windows[end] <= s <= end + reach]
        finer: list[object] = [run.spec.ledger_by] if run.spec.ledger_by != Resolution() else []
        finer += names_version(run.spec.model, neurons=run.spec.ledger_by.neurons)
        for name in run.spec.ledger:
            version = [CODE_VERSION, name, MECHANISMS[name].version]
            probe = probe_version(name, run.artifacts)
            cells[Cell("ledger", run.spec.run, end, name)] = fingerprint(
                "ledger", version, states, probe, run.training, *finer
            )
        if run.spec.ledger_by.weights:
            account = Cell("ledger", run.spec.run, end, WEIGHTS)
            cells[account] = fingerprint("ledger", [CODE_VERSION, WEIGHTS], states, run.training, *finer)
    return cells


def pending(run: OpenRun, steps: Iterable[int]) -> list[Cell]:
    """The ledger cells that must be computed; one counts only together with its balance."""
    return pending_cells(run.store, wanted(run, steps), also=["ledger_balance"])


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
        carries: dict[str, Vector] = {}
        done = 0
        for begin, end in reversed(run.windows(max(run.checkpoints))):
            if not any(0 <= begin - step < reach or step == end for step in waiting):
                carries = {}
                continue
            carries = book.window(begin, end, carries, write=end in waiting)
            done += end in waiting
            report(done)
            if len(book.unwritten) >= _FLUSH_WINDOWS:
                on_steps(book.flush())
        if book.unwritten:
            on_steps(book.flush())
    return len(todo)
