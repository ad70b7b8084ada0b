"""The report's section that sets influence beside the ledger, example by example: two questions, two answers."""

from mech_pipeline.reports.influence import figures, queries
from mech_pipeline.reports.section import Section
from mech_pipeline.reports.subject import Study


def comparison(study: Study) -> Section:
    """One dot per example, for each mechanism that has both."""
    parts, drawn = [], {}
    for subject in study.influences:
        both = queries.influence_against_ledger(study.connection, subject)
        if both.is_empty():
            continue
        name = f"influence_against_ledger.{subject.mechanism}.png"
        drawn[name] = figures.influence_against_ledger(both, subject.unit, subject.title)
        parts.append({"figure": name, "correlation": figures.rank_correlation(both), "run": subject.run})
    return Section(
        "comparison", "Influence against ledger", "influence/comparison.html", {"parts": parts}, drawn, not parts
    )
