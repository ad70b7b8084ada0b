"""The report's section on influence: may it be trusted, when were the examples seen that count, and which are they?

Per mechanism it shows the first run that has one. The other runs are in the store; showing every seed's documents would
bury the reader.
"""

from dataclasses import dataclass

import polars as pl
from matplotlib.figure import Figure

from mech_pipeline.attribution.estimators.methods import METHODS
from mech_pipeline.attribution.retraining.trust import Trust, trust
from mech_pipeline.reports.documents import SHOWN_DOCUMENTS, Excerpt, excerpts
from mech_pipeline.reports.formation.queries import formation_events
from mech_pipeline.reports.influence import figures, queries
from mech_pipeline.reports.section import Section
from mech_pipeline.reports.subject import Study, Subject
from mech_pipeline.reports.wording import UNKNOWN, number, percent

MEASURES = {
    "metasmoothness": "1: the weights move straight with the data weights, so a derivative predicts; 0: it does not",
    "value_at_0": "the mechanism at the target, as it was trained",
    "value_at_h": "the mechanism after training with weights of the examples perturbed by h",
    "value_at_2h": "the same, perturbed by twice as much: near a straight line through the other two where training is smooth",
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
class InfluencePart:
    """The influence on one mechanism of one run at its target step.

    Attributes:
        trust: may it be trusted?
        kinds: shares of each kind among the examples with most influence; empty where all are of one kind.
    """

    subject: Subject
    trust: Trust
    measures: list[Measure]
    n_examples: int
    kinds: list[dict[str, str]]
    documents: list[Excerpt]
    figure: str
    flagged: str
    estimators: list[dict[str, str]]


def influence(study: Study) -> Section:
    """One influence of each mechanism."""
    context = {"parts": [_part(study, each) for each in study.influences], "nothing": no_influence(study)}
    drawn = {_figure_name(each): _drawn(study, each) for each in study.influences}
    return Section(
        "influence", "Influence: what would happen", "influence/section.html", context, drawn, empty=not drawn
    )


def no_influence(study: Study) -> str:
    """Why there is no influence to show."""
    covered = [spec for spec in study.specs if spec.influence.mechanisms]
    if not covered:
        return (
            "This experiment asks for no influence (no run is covered by `influence.mechanisms`, `influence.arms` and "
            "`influence.seeds`)."
        )
    if all("adjoint" not in spec.influence.methods for spec in covered):
        return "This experiment asks for cheap estimators only (`influence.methods`): see the table `influence`."
    events = formation_events(study.connection, study.runs).filter(mechanism=study.experiment.formation[0].signal)
    formed = set(events.drop_nulls("step")["run"])
    waits = all(spec.influence.at == "formation" for spec in covered)
    if waits and events.height and not formed & {spec.run for spec in covered}:
        return "Influence is computed where the first formation event happened, and in no run it covers it happened."
    return "Influence was asked for, but it has not been computed yet."


def _part(study: Study, subject: Subject) -> InfluencePart:
    connection = study.connection
    return InfluencePart(
        subject,
        trust(connection, subject.run, subject.target, subject.mechanism),
        _measures(queries.reliability_measures(connection, subject)),
        queries.influenced_examples(connection, subject),
        _kinds(queries.kind_shares(connection, subject)),
        excerpts(queries.responsible_documents(connection, subject, "influence", SHOWN_DOCUMENTS)),
        _figure_name(subject),
        "{:,} of {:,}".format(*queries.flagged_scores(connection, subject)),
        _estimators(queries.estimator_agreement(connection, subject)),
    )


def _figure_name(subject: Subject) -> str:
    return f"influence_over_updates.{subject.mechanism}.png"


def _drawn(study: Study, subject: Subject) -> Figure:
    by_update = queries.influence_by_update(study.connection, subject)
    norms = queries.adjoint_norms(study.connection, subject)
    return figures.influence_over_updates(by_update, norms, subject.unit, subject.title)


def _kinds(shares: pl.DataFrame) -> list[dict[str, str]]:
    """Shares by kind in words; nothing where there is nothing to compare."""
    return [
        {
            "kind": row["kind"],
            "n": f"{row['n']:,}",
            "top": percent(row["top"]),
            "bottom": percent(row["bottom"]),
            "everything": percent(row["everything"]),
        }
        for row in shares.iter_rows(named=True)
        if shares.height > 1
    ]


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
