"""Ledger partitions: one account per window between checkpoints, written window by window from the last to the first.

A window's `value_later` depends on the windows in which its momentum still acts: β^n ≥ 1e-8, 175 updates for β = 0.9.
They are replayed as well and are part of its fingerprint, so a run that grows longer updates its last accounts.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from mech_pipeline.attribution.contraction import Contraction
from mech_pipeline.attribution.ledger import Account, replay_with_factors, window_account
from mech_pipeline.attribution.quadrature import ABSOLUTE_ERROR
from mech_pipeline.errors import MechError
from mech_pipeline.mechanisms.registry import MECHANISMS
from mech_pipeline.pipeline.checkpoints import provenance_columns
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.progress import Report, ignore_progress
from mech_pipeline.spec.fingerprint import fingerprint
from mech_pipeline.spec.training import Optimizer
from mech_pipeline.store.currency import Cell, outdated, stored_versions
from mech_pipeline.store.rows import content_version
from mech_pipeline.store.tables import TABLES
from mech_pipeline.training.device import computing
from mech_pipeline.training.flat import FlatModel
from mech_pipeline.training.model import build_model
from mech_pipeline.training.optimizer import State, Vector

CODE_VERSION = "2"
_FORGOTTEN = 1e-8
_FLUSH_WINDOWS = 12

BALANCE_TOLERANCE = 1e-5
"""Largest |explained − change| per window, relative to its gross movement."""
RESOLUTION = 2e-6
RESOLUTION_PER_UPDATE = ABSOLUTE_ERROR
"""Added to it, in the unit of M: float32 gradients of a loss of some nats sum to M no finer (1e-7 to 7e-7 were seen)."""
ERROR_TOLERANCE = 1e-6
"""Largest update_error and example_error; fp32 sums of 1e5 terms reach about 1e-7."""


OnBalance = Callable[[list[dict[str, Any]]], None]


def checks(balance: Mapping[str, Any]) -> dict[str, bool]:
    """The two checks of a window, from its row in `ledger_balance`."""
    allowed = BALANCE_TOLERANCE * balance["gross"] + RESOLUTION + RESOLUTION_PER_UPDATE * balance["updates"]
    return {
        "examples_sum_to_update": max(balance["update_error"], balance["example_error"]) <= ERROR_TOLERANCE,
        "ledger_sums_to_change": abs(balance["explained"] - balance["change"]) <= allowed,
    }


class LedgerImbalance(MechError):
    """A window whose contributions do not add up: something was left out of the account."""

    def __init__(self, balance: Mapping[str, Any]) -> None:
        self.balance = dict(balance)
        failed = ", ".join(name for name, passed in checks(balance).items() if not passed)
        super().__init__(
            f"ledger of {balance['mechanism']} at step {balance['step']} of run {balance['run']} fails {failed}: explained "
            f"{balance['explained']:.9g} of a change of {balance['change']:.9g}, update error {balance['update_error']:.2g}, "
            f"example error {balance['example_error']:.2g}",
            "this is a fault in the program or in a checkpoint; nothing of it was stored",
        )


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
        for name in run.spec.ledger:
            version = [CODE_VERSION, name, MECHANISMS[name].version]
            cells[end, name] = fingerprint("ledger", version, states, run.artifacts["probe"], run.training)
    return cells


def pending(run: OpenRun, steps: Iterable[int]) -> list[Cell]:
    """The ledger cells that must be computed."""
    return outdated(stored_versions(run.store, "ledger", run.spec.run), wanted(run, steps))


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
    waiting = {step for step, _ in todo}
    current = [step for step in steps if step not in waiting]
    if current:
        on_steps(current)
    if not todo:
        return 0
    with computing(run.spec.training):
        book = _Book(run, wanted(run, waiting), on_balance)
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


class _Book:
    """Computes accounts and keeps their rows until they are flushed."""

    def __init__(self, run: OpenRun, fingerprints: dict[Cell, str], on_balance: OnBalance) -> None:
        self.on_balance = on_balance
        self._run = run
        self._fingerprints = fingerprints
        self._contraction = Contraction(run.trainer.flat, run.components)
        tokens = run.tokens
        model = build_model(run.spec.model, tokens.vocabulary, tokens.pool.shape[1], run.spec.seed)
        self._exact = FlatModel(model.double())
        self.unwritten: list[int] = []
        self._rows: list[pa.Table] = []
        self._balance: list[dict[str, Any]] = []
        self._values: dict[tuple[str, int], float] = {}

    def window(self, begin: int, end: int, carries: dict[str, Vector], write: bool) -> dict[str, Vector]:
        """The accounts of one window; returns what the window before needs of each mechanism."""
        run = self._run
        updates, factors = replay_with_factors(run.trainer, run.state(begin), end)
        run.verify(updates[-1].after)
        result: dict[str, Vector] = {}
        self._values = {}
        for name in run.spec.ledger:
            account = window_account(
                run.spec.optimizer,
                run.components,
                self._contraction,
                self._gradient(name),
                updates,
                factors,
                carries.get(name),
                partial(self._exact_value, name),
            )
            result[name] = account.carry
            if write:
                self._keep(name, end, account)
        if write:
            self.unwritten.append(end)
        return result

    def flush(self) -> list[int]:
        """Publishes the kept accounts; returns their steps. The balance is written first: no account without its check.

        Raises:
            LedgerImbalance: a window does not balance; nothing of the batch is published.
        """
        run, steps = self._run, self.unwritten
        self.on_balance(self._balance)
        for row in self._balance:
            if not all(checks(row).values()):
                raise LedgerImbalance(row)
        replace: dict[str, list[Any]] = {"run": [run.spec.run], "step": steps, "mechanism": list(run.spec.ledger)}
        columns = {name: [row[name] for row in self._balance] for name in self._balance[0]}
        run.store.write("ledger_balance", columns, replace=replace, code_version=CODE_VERSION)
        run.store.write("ledger", pa.concat_tables(self._rows), replace=replace, code_version=CODE_VERSION)
        self.unwritten, self._rows, self._balance = [], [], []
        return steps

    def _gradient(self, name: str) -> Callable[[Vector], Vector]:
        flat, probe, value = self._run.trainer.flat, self._run.tokens.probe, MECHANISMS[name].value

        def at(theta: Vector) -> Vector:
            flat.load(theta)
            return flat.gradient(value(flat.model, probe))

        return at

    def _exact_value(self, name: str, state: State) -> float:
        """M in double precision; each state of a window is asked for up to three times."""
        key = name, state.step
        if key not in self._values:
            self._exact.load(state.theta.double())
            with torch.no_grad():
                self._values[key] = float(MECHANISMS[name].value(self._exact.model, self._run.tokens.probe))
        return self._values[key]

    def _keep(self, name: str, end: int, account: Account) -> None:
        run = self._run
        columns: dict[str, Any] = dict(account_columns(account, run.components.names, run.tokens.example_ids))
        count = len(columns["value"])
        columns |= {
            "run": pa.repeat(run.spec.run, count),
            "step": pa.repeat(pa.scalar(end, pa.int32()), count),
            "mechanism": pa.repeat(name, count),
        }
        version = content_version(TABLES["ledger"], columns)
        made_from = self._fingerprints[end, name]
        columns |= provenance_columns(count, made_from, version)
        schema = TABLES["ledger"].schema
        self._rows.append(pa.table({field.name: columns[field.name] for field in schema}, schema=schema))
        updates = account.updates
        change = self._exact_value(name, updates[-1].after) - self._exact_value(name, updates[0].before)
        self._balance.append(
            {
                "run": run.spec.run,
                "step": end,
                "mechanism": name,
                "change": change,
                "explained": float(columns["value"].to_numpy().astype(np.float64).sum()),
                "updates": len(updates),
                "gross": account.gross,
                "update_error": account.update_error,
                "example_error": account.example_error,
                "input_fingerprint": made_from,
                "data_version": version,
            }
        )


def account_columns(account: Account, components: tuple[str, ...], example_ids: np.ndarray) -> dict[str, pa.Array]:
    """The rows of an account, without run, step and mechanism."""
    updates, batch, parts = account.examples.shape
    steps = np.array([made.before.step for made in account.updates], dtype=np.int32)
    pool_rows = np.stack([made.examples.numpy() for made in account.updates])
    unique, codes = np.unique(pool_rows.reshape(-1), return_inverse=True)
    others = updates * parts + parts  # weight decay of every update, momentum once
    example_code = np.concatenate([np.repeat(codes, parts), np.zeros(others)]).astype(np.int32)
    component_code = np.tile(np.arange(parts), updates * batch + updates + 1).astype(np.int32)
    term_code = np.repeat(np.arange(3), [updates * batch * parts, updates * parts, parts]).astype(np.int32)
    rows = {
        "update_step": pa.array(
            np.concatenate([np.repeat(steps, batch * parts), np.repeat(steps, parts), np.repeat(steps[:1], parts)])
        ),
        "term": _decoded(term_code, ["example", "weight_decay", "momentum"]),
        "example_id": _decoded(example_code, example_ids[unique].tolist(), term_code > 0),
        "component": _decoded(component_code, list(components)),
        "value": pa.array(
            np.concatenate(
                [
                    account.examples.flatten().numpy(),
                    account.weight_decay.flatten().numpy(),
                    account.momentum.numpy(),
                ]
            )
        ),
        "value_later": pa.array(
            np.concatenate(
                [
                    account.examples_later.flatten().numpy(),
                    account.weight_decay_later.flatten().numpy(),
                    np.zeros(parts),
                ]
            )
        ),
    }
    if any(len(set(row)) < batch for row in pool_rows.tolist()):
        rows = _summed(rows)
    return rows | {name: rows[name].cast(pa.float32()) for name in ("value", "value_later")}


def _decoded(codes: np.ndarray, names: list[str], absent: np.ndarray | None = None) -> pa.Array:
    """A text column from codes, without a Python string per row."""
    return pa.DictionaryArray.from_arrays(pa.array(codes, mask=absent), pa.array(names)).cast(pa.string())


def _summed(rows: dict[str, pa.Array]) -> dict[str, pa.Array]:
    """An example that came twice in one batch gets one row."""
    keys = ["update_step", "term", "example_id", "component"]
    summed = pa.table(rows).group_by(keys).aggregate([("value", "sum"), ("value_later", "sum")]).combine_chunks()
    names = {name: f"{name}_sum" if name.startswith("value") else name for name in rows}
    return {name: summed[column].chunk(0) for name, column in names.items()}
