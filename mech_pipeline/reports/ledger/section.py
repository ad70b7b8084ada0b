"""The report's section on the ledger: whether it balances, what it sums to, and the examples that did most.

Per mechanism it shows the first run that has one. The other runs are in the balance table and in the store; showing
every seed's documents would bury the reader.
"""

from dataclasses import dataclass

import polars as pl
from matplotlib.figure import Figure

from mech_pipeline.reports.documents import SHOWN_DOCUMENTS, Excerpt, excerpts
from mech_pipeline.reports.influence.queries import responsible_documents
from mech_pipeline.reports.ledger import figures, queries
from mech_pipeline.reports.section import Section
from mech_pipeline.reports.subject import Study, Subject
from mech_pipeline.reports.wording import number, signal_unit

BALANCED_WITHIN = 1e-3
"""A convention: |explained − change| up to this share of the gross movement is rounding (docs/method.md §1 reached 2e-7 of
the change); a missing term leaves more. Measured against the gross, because a net change may be near 0."""


@dataclass(frozen=True)
class BalanceRow:
    """The checks of one run's ledger in words."""

    run: str
    mechanism: str
    unit: str
    intervals: str
    change: str
    explained: str
    imbalance: str
    balanced: bool
    update_error: str
    example_error: str


@dataclass(frozen=True)
class LedgerPart:
    """The ledger of one run and mechanism."""

    subject: Subject
    totals: list[dict[str, str]]
    documents: list[Excerpt]
    figure: str


def ledger(study: Study) -> Section:
    """The balance of every ledger, and one ledger of each mechanism."""
    context = {
        "balance": balance_rows(study),
        "parts": [_part(study, subject) for subject in study.ledgers],
        "nothing": no_ledger(study),
    }
    drawn = {_figure_name(subject): _drawn(study, subject) for subject in study.ledgers}
    return Section("ledger", "Ledger: what happened", "ledger/section.html", context, drawn, empty=not drawn)


def no_ledger(study: Study) -> str:
    """Why there is no ledger to show."""
    if any(spec.ledger for spec in study.specs):
        return "A ledger was asked for, but it has not been computed yet."
    return (
        "This experiment asks for no ledger (no run is covered by `ledger.mechanisms`, `ledger.arms` and "
        "`ledger.seeds`)."
    )


def balance_rows(study: Study) -> list[BalanceRow]:
    """The balance of every ledger of the experiment, intervals that are still missing named."""
    planned = {spec.run: len(spec.checkpoint_steps()) - 1 for spec in study.specs}
    return [
        BalanceRow(
            row["run"],
            row["mechanism"],
            signal_unit(row["mechanism"]),
            f"{row['n_partitions']} of {planned[row['run']]}",
            number(row["change"], 6),
            number(row["explained"], 6),
            number(row["imbalance"], 2),
            abs(row["explained"] - row["change"]) <= BALANCED_WITHIN * row["gross"],
            number(row["update_error"], 2),
            number(row["example_error"], 2),
        )
        for row in queries.balance(study.connection, study.runs).iter_rows(named=True)
        if row["mechanism"] in study.experiment.mechanisms
    ]


def _part(study: Study, subject: Subject) -> LedgerPart:
    documents = responsible_documents(study.connection, subject, "ledger", SHOWN_DOCUMENTS)
    totals = queries.ledger_totals(study.connection, subject.run, subject.mechanism)
    return LedgerPart(subject, _total_rows(totals), excerpts(documents), _figure_name(subject))


def _figure_name(subject: Subject) -> str:
    return f"ledger_over_steps.{subject.mechanism}.png"


def _drawn(study: Study, subject: Subject) -> Figure:
    connection, run, mechanism = study.connection, subject.run, subject.mechanism
    return figures.ledger_over_steps(
        queries.ledger_by_component(connection, run, mechanism),
        queries.ledger_by_kind(connection, run, mechanism),
        queries.ledger_change(connection, run, mechanism),
        subject.unit,
        f"{mechanism}, run {run}",
    )


def _total_rows(totals: pl.DataFrame) -> list[dict[str, str]]:
    return [
        {
            "name": f"{row['kind']} examples (n = {row['n_examples']:,})"
            if row["term"] == "example"
            else str(row["term"]).replace("_", " "),
            "value": number(row["value"]),
            "later": number(row["value_later"]),
        }
        for row in totals.iter_rows(named=True)
    ]
