"""What `mech run` prints at the end: formation, balance, responsible documents, and where to go on."""

import io
import json
from pathlib import Path

import duckdb
from rich.console import Console

from mech_pipeline.attribution.retraining.effects import lds_measures
from mech_pipeline.attribution.retraining.trust import trust
from mech_pipeline.plain_text import ERRORS, PlainTable
from mech_pipeline.project import report_name
from mech_pipeline.reports.answer import listed
from mech_pipeline.reports.formation.queries import results_per_run
from mech_pipeline.reports.influence.queries import kind_shares, responsible_documents
from mech_pipeline.reports.ledger.queries import balance
from mech_pipeline.reports.retraining.words import proof_sentences
from mech_pipeline.reports.subject import Subject, attributed, subject
from mech_pipeline.reports.wording import UNKNOWN, number, signal_name, signal_unit
from mech_pipeline.spec.experiment import Experiment
from mech_pipeline.store.reading import connect
from mech_pipeline.store.reading.warehouse import FILE

_TOP = 10
_SNIPPET = 40


def summary(root: str, experiment: Experiment, local: Path, encoding: str = "utf-8") -> str:
    """The end of a run in words and tables, from the store alone.

    Args:
        local: where `warehouse.duckdb` lies.
        encoding: of the stream that it is printed to.
    """
    memory = io.TextIOWrapper(io.BytesIO(), encoding, ERRORS, newline="\n")
    console = Console(file=memory, width=118, highlight=False, markup=False, emoji=False)
    runs = [spec.run for spec in experiment.runs()]
    with connect(root) as connection:
        _formation(console, connection, experiment, runs)
        for run, mechanism in attributed(connection, "ledger", runs):
            _ledger(console, connection, subject(connection, run, mechanism))
        for run, mechanism in attributed(connection, "influence", runs):
            _influence(console, connection, subject(connection, run, mechanism))
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
    memory.seek(0)
    return memory.read().rstrip()


def _formation(
    console: Console, connection: duckdb.DuckDBPyConnection, experiment: Experiment, runs: list[str]
) -> None:
    for event in experiment.formation:
        table = PlainTable(
            "run",
            "formed at step",
            "not before",
            f"last value ({signal_unit(event.signal)})",
            title=f"Formation of {signal_name(event.signal)}: at least {event.threshold:g}, "
            f"sustained {event.sustain} ×{event.since}",
        )
        for row in results_per_run(connection, runs, event.signal).iter_rows(named=True):
            formed = (
                "never (censored)" if row["censored"] else "not evaluated" if row["step"] is None else str(row["step"])
            )
            table.add_row(
                row["run"], formed, "" if row["lower"] is None else str(row["lower"]), number(row["final_value"])
            )
        console.print(table)


def _ledger(console: Console, connection: duckdb.DuckDBPyConnection, told: Subject) -> None:
    found = balance(connection, [told.run]).filter(mechanism=told.mechanism)
    for row in found.iter_rows(named=True):
        console.print(
            f"\nLedger of {told.mechanism}, {told.run}: explained {row['explained']:+.7f} of a change of "
            f"{row['change']:+.7f} {told.unit} (relative imbalance {row['imbalance']:.1e}, {row['n_partitions']} windows)"
        )
    title = f"Most responsible documents up to step {told.target}: what happened (ledger)"
    table = PlainTable("document:line", "kind", "seen", f"moved it by ({told.unit})", "starts with", title=title)
    for row in responsible_documents(connection, told, "ledger", _TOP).iter_rows(named=True):
        text = json.dumps((row["text"] or "")[:_SNIPPET], ensure_ascii=False)
        where = UNKNOWN if row["document"] is None else f"{row['document']}:{row['line']}"
        table.add_row(where, row["kind"], str(row["times_seen"]), f"{row['total']:+.4f}", text)
    console.print(table)


def _influence(console: Console, connection: duckdb.DuckDBPyConnection, told: Subject) -> None:
    shares = kind_shares(connection, told)
    kinds = ""
    if shares.height > 1:
        kinds = (
            f"of the top 5 % of examples {listed(shares, 'top')}, of the bottom 5 % {listed(shares, 'bottom')} "
            f"(of all: {listed(shares, 'everything')}). "
        )
    console.print(
        f"\nInfluence on {told.mechanism} at step {told.target}, {told.run}: {kinds}A prediction for small changes. "
        f"{trust(connection, told.run, told.target, told.mechanism).sentence}"
    )
    measures = lds_measures(connection, told.run, told.target).filter(mechanism=told.mechanism)
    for sentence in proof_sentences(measures, told.unit):
        console.print(sentence)
