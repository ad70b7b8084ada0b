"""What `mech run` prints at the end: formation, balance, responsible documents, and where to go on."""

import io
import json
from pathlib import Path

import duckdb
from rich.console import Console
from rich.table import Table

from mech_pipeline.project import report_name
from mech_pipeline.reports.formation.queries import results_per_run
from mech_pipeline.reports.influence.queries import attributed, responsible_documents, target_step, tiled_share_of_top
from mech_pipeline.reports.ledger.queries import balance
from mech_pipeline.reports.retraining.queries import lds_measures
from mech_pipeline.reports.trust import trust
from mech_pipeline.reports.wording import interval, number, percent, signal_name, signal_unit
from mech_pipeline.spec.experiment import Experiment
from mech_pipeline.store.reading import connect
from mech_pipeline.store.reading.warehouse import FILE

_TOP = 10
_SNIPPET = 40


def summary(root: str, experiment: Experiment, local: Path) -> str:
    """The end of a run in words and tables, from the store alone; `local` is where `warehouse.duckdb` lies."""
    console = Console(file=io.StringIO(), width=118, highlight=False)
    runs = [spec.run for spec in experiment.runs()]
    with connect(root) as connection:
        _formation(console, connection, experiment, runs)
        for run, mechanism in attributed(connection, "ledger", runs):
            _ledger(console, connection, run, mechanism)
        for run, mechanism in attributed(connection, "influence", runs):
            _influence(console, connection, run, mechanism)
    name = experiment.experiment
    first = experiment.formation[0].signal
    place = f"{root}/{report_name(name)}" if local == Path(root) else f"mech report {name}"
    console.print(f"\nreport     {place}", soft_wrap=True)
    console.print(f"DuckDB     {local / FILE}", soft_wrap=True)
    console.print("UI         make ui")
    console.print(
        f"SQL        mech sql \"select run, step, lower, censored from formation where mechanism = '{first}'\"",
        soft_wrap=True,
    )
    console.print("           mech tables")
    assert isinstance(console.file, io.StringIO), "the console writes to memory"
    return console.file.getvalue().rstrip()


def _formation(
    console: Console, connection: duckdb.DuckDBPyConnection, experiment: Experiment, runs: list[str]
) -> None:
    for event in experiment.formation:
        table = Table(
            "run",
            "formed at step",
            "not before",
            f"last value ({signal_unit(event.signal)})",
            title=f"Formation of {signal_name(event.signal)}: at least {event.threshold:g}, sustained {event.sustain} ×",
        )
        for row in results_per_run(connection, runs, event.signal).iter_rows(named=True):
            formed = (
                "never (censored)" if row["censored"] else "not evaluated" if row["step"] is None else str(row["step"])
            )
            table.add_row(
                row["run"], formed, "" if row["lower"] is None else str(row["lower"]), number(row["final_value"])
            )
        console.print(table)


def _ledger(console: Console, connection: duckdb.DuckDBPyConnection, run: str, mechanism: str) -> None:
    found = balance(connection, [run]).filter(mechanism=mechanism)
    for row in found.iter_rows(named=True):
        console.print(
            f"\nLedger of {mechanism}, {run}: explained {row['explained']:+.7f} of a change of {row['change']:+.7f} "
            f"{signal_unit(mechanism)} (relative imbalance {row['imbalance']:.1e}, {row['n_partitions']} windows)"
        )
    step = target_step(connection, run, mechanism)
    _documents(
        console, connection, run, mechanism, f"Most responsible documents up to step {step}: what happened (ledger)"
    )


def _documents(console: Console, connection: duckdb.DuckDBPyConnection, run: str, mechanism: str, title: str) -> None:
    table = Table(
        "document:line", "kind", "seen", f"moved it by ({signal_unit(mechanism)})", "starts with", title=title
    )
    for row in responsible_documents(connection, run, mechanism, "ledger", _TOP).iter_rows(named=True):
        text = json.dumps((row["text"] or "")[:_SNIPPET], ensure_ascii=False)
        table.add_row(
            f"{row['document']}:{row['line']}", row["kind"], str(row["times_seen"]), f"{row['total']:+.4f}", text
        )
    console.print(table, markup=False)


def _influence(console: Console, connection: duckdb.DuckDBPyConnection, run: str, mechanism: str) -> None:
    top, everything = (tiled_share_of_top(connection, run, mechanism, share) for share in (0.05, 1.0))
    if top is None or everything is None:
        return
    step = target_step(connection, run, mechanism)
    tiled = (
        f"{percent(top)} of the top 5 % of examples are tiled ({percent(everything)} of all). " if everything else ""
    )
    console.print(
        f"\nInfluence on {mechanism} at step {step}, {run}: {tiled}A prediction for small changes. "
        f"{trust(connection, run, step or 0, mechanism).sentence}"
    )
    for row in lds_measures(connection, run, step or 0).filter(mechanism=mechanism, metric="lds").iter_rows(named=True):
        console.print(
            f"Retrained without random {100 * row['fraction']:g} % of the examples, {row['n']} times: LDS of "
            f"{row['method']} {interval(row['value'], row['lower'], row['upper'])}."
        )
