"""What a report shows of ledger and influence: per mechanism, the first run that has them.

The other runs are in the balance table and in the store; showing every seed's documents would bury the reader.
"""

from dataclasses import dataclass

import duckdb
import polars as pl

from mech_pipeline.attribution.estimators.methods import METHODS
from mech_pipeline.reports.documents import Excerpt, excerpts
from mech_pipeline.reports.formation import figures
from mech_pipeline.reports.influence import queries as attribution_queries
from mech_pipeline.reports.ledger import queries as ledger_queries
from mech_pipeline.reports.trust import Trust, trust
from mech_pipeline.reports.wording import UNKNOWN, number, signal_unit
from mech_pipeline.spec.experiment import Experiment

SHOWN_DOCUMENTS = 10
BALANCED_WITHIN = 1e-3
"""A convention: |explained − change| up to this share of the gross movement is rounding (a prototype reached 2e-7 of the
change); a missing term leaves more. Measured against the gross, because a net change may be near 0."""
MEASURES = {
    "metasmoothness": "1: the weights move straight with the data weights, so a derivative predicts; 0: it does not",
    "metasmoothness_since": "first update that metasmoothness speaks of",
    "adjoint_growth": "largest adjoint norm on the way back, relative to the norm at the target step",
    "horizon_step": "first update from which on the adjoint stays within its limit; distrust influence from before it",
    "influence_sum": "sum of scores / sum of |scores|; near 0 under Adam, where re-weighting all alike changes little",
}


@dataclass(frozen=True)
class Measure:
    """One reliability number in words."""

    name: str
    value: str
    meaning: str


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
class LedgerSection:
    """The ledger of one run and mechanism."""

    run: str
    mechanism: str
    unit: str
    target: int
    totals: list[dict[str, str]]
    documents: list[Excerpt]
    figure: str


@dataclass(frozen=True)
class InfluenceSection:
    """The influence on one mechanism of one run at its target step.

    Attributes:
        trust: may it be trusted?
    """

    run: str
    mechanism: str
    unit: str
    target: int
    trust: Trust
    measures: list[Measure]
    n_examples: int
    tiled_top: float
    tiled_all: float
    documents: list[Excerpt]
    figure: str
    against_ledger: str | None
    correlation: str
    flagged: str
    estimators: list[dict[str, str]]


def first_per_mechanism(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Of (run, mechanism) pairs, the first of each mechanism.

    >>> first_per_mechanism([("a.s0", "m"), ("a.s1", "m"), ("a.s1", "k")])
    [('a.s0', 'm'), ('a.s1', 'k')]
    """
    seen: dict[str, tuple[str, str]] = {}
    for pair in pairs:
        seen.setdefault(pair[1], pair)
    return list(seen.values())


def balance_rows(connection: duckdb.DuckDBPyConnection, experiment: Experiment) -> list[BalanceRow]:
    """The balance of every ledger of the experiment, intervals that are still missing named."""
    planned = {spec.run: len(spec.checkpoint_steps()) - 1 for spec in experiment.runs()}
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
        for row in ledger_queries.balance(connection, list(planned)).iter_rows(named=True)
        if row["mechanism"] in experiment.mechanisms
    ]


def ledger_section(
    connection: duckdb.DuckDBPyConnection, run: str, mechanism: str, drawn: dict[str, bytes]
) -> LedgerSection:
    """Queries the ledger of a run, and adds its figure to `drawn`."""
    unit, figure = signal_unit(mechanism), f"ledger_over_steps.{mechanism}.png"
    drawn[figure] = figures.figure_png(
        figures.ledger_over_steps(
            ledger_queries.ledger_by_component(connection, run, mechanism),
            ledger_queries.ledger_by_kind(connection, run, mechanism),
            ledger_queries.ledger_change(connection, run, mechanism),
            unit,
            f"{mechanism}, run {run}",
        )
    )
    documents = attribution_queries.responsible_documents(connection, run, mechanism, "ledger", SHOWN_DOCUMENTS)
    target = attribution_queries.target_step(connection, run, mechanism)
    assert target is not None, "a run with a ledger has a last step"
    totals = ledger_queries.ledger_totals(connection, run, mechanism)
    return LedgerSection(run, mechanism, unit, target, _total_rows(totals), excerpts(documents), figure)


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


def influence_section(
    connection: duckdb.DuckDBPyConnection, run: str, mechanism: str, drawn: dict[str, bytes]
) -> InfluenceSection:
    """Queries the influence on a mechanism of a run, and adds its figures to `drawn`."""
    unit, figure = signal_unit(mechanism), f"influence_over_updates.{mechanism}.png"
    target = attribution_queries.target_step(connection, run, mechanism)
    assert target is not None, "a run with influence has a target step"
    title = f"{mechanism} at step {target:,}, run {run}"
    drawn[figure] = figures.figure_png(
        figures.influence_over_updates(
            attribution_queries.influence_by_update(connection, run, mechanism),
            attribution_queries.adjoint_norms(connection, run, mechanism),
            unit,
            title,
        )
    )
    both = attribution_queries.influence_against_ledger(connection, run, mechanism)
    against = f"influence_against_ledger.{mechanism}.png" if both.height else None
    if against is not None:
        drawn[against] = figures.figure_png(figures.influence_against_ledger(both, unit, title))
    measured = attribution_queries.reliability_measures(connection, run, mechanism)
    documents = attribution_queries.responsible_documents(connection, run, mechanism, "influence", SHOWN_DOCUMENTS)
    return InfluenceSection(
        run,
        mechanism,
        unit,
        target,
        trust=trust(connection, run, target, mechanism),
        measures=_measures(measured),
        n_examples=attribution_queries.influenced_examples(connection, run, mechanism),
        tiled_top=attribution_queries.tiled_share_of_top(connection, run, mechanism) or 0.0,
        tiled_all=attribution_queries.tiled_share_of_top(connection, run, mechanism, share=1.0) or 0.0,
        documents=excerpts(documents),
        figure=figure,
        against_ledger=against,
        correlation=figures.rank_correlation(both),
        flagged="{:,} of {:,}".format(*attribution_queries.flagged_scores(connection, run, mechanism)),
        estimators=_estimators(attribution_queries.estimator_agreement(connection, run, mechanism)),
    )


def _estimators(found: pl.DataFrame) -> list[dict[str, str]]:
    """Cheap estimators beside the exact one, in words."""
    return [
        {
            "method": row["method"],
            "meaning": METHODS[row["method"]].meaning if row["method"] in METHODS else "",
            "agreement": UNKNOWN
            if row["agreement"] is None
            else f"{number(row['agreement'], 2)} [{number(row['low'], 2)}, {number(row['high'], 2)}]",
            "n": f"{row['n']:,}",
        }
        for row in found.iter_rows(named=True)
    ]


def _measures(measured: dict[str, float]) -> list[Measure]:
    """The known measures in their order, "not measured" included, then whatever else was measured."""
    others = sorted(set(measured) - set(MEASURES) - {"reliable"})
    values = {name: number(measured[name]) if name in measured else "not measured" for name in [*MEASURES, *others]}
    return [Measure(name.replace("_", " "), value, MEASURES.get(name, "")) for name, value in values.items()]
