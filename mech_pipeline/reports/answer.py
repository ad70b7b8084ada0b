"""The answer of an experiment in sentences, made from numbers only: when it formed, in which arm, from what text."""

from typing import Any

import duckdb
import polars as pl

from mech_pipeline.attribution.retraining.effects import lds_measures
from mech_pipeline.attribution.retraining.trust import Trust, trust
from mech_pipeline.reports.formation.queries import results_table
from mech_pipeline.reports.influence.queries import kind_shares
from mech_pipeline.reports.retraining.words import proof_sentences
from mech_pipeline.reports.subject import Study, Subject
from mech_pipeline.reports.wording import number, percent, plus_minus, signal_name, signal_unit
from mech_pipeline.spec.experiment import Experiment


def answer_text(connection: duckdb.DuckDBPyConnection, experiment: Experiment) -> str:
    """The answer of an experiment as one paragraph of plain text: what its report says first. A second at most.

    Args:
        connection: from `store.reading.connect`, or a store's own `reading`.
    """
    return answer(Study(connection, experiment, tuple(experiment.runs())))


def answer(study: Study) -> str:
    """One paragraph: formation of the first event per arm, then the kinds of the most influential examples, and what
    retraining without them did.

    Of influences, that on the event's own mechanism is spoken of, else the first.
    """
    event = study.experiment.formation[0]
    results = results_table(study.connection, study.runs, event.signal)
    if results.is_empty():
        return "Nothing has been evaluated yet: no run of this experiment has values in the store."
    sentences = [
        f"Formation here means: {signal_name(event.signal)} reaches {event.threshold:g} {signal_unit(event.signal)} "
        f"and stays there for {event.sustain} evaluation{'s' if event.sustain > 1 else ''} in a row{event.since}."
    ]
    sentences += [arm_sentence(row) for row in results.iter_rows(named=True)]
    watched = [each for each in study.influences if each.mechanism == event.mechanism] or study.influences
    for subject in watched[:1]:
        verdict = trust(study.connection, subject.run, subject.target, subject.mechanism)
        sentences.append(influence_sentences(subject, kind_shares(study.connection, subject), verdict))
        measures = lds_measures(study.connection, subject.run, subject.target).filter(mechanism=subject.mechanism)
        sentences += proof_sentences(measures, subject.unit)
    return " ".join(sentences)


def arm_sentence(row: dict[str, Any]) -> str:
    """When the event happened in one arm (a row of `results_table`), censored seeds named."""
    arm, formed, censored = row["arm"], row["n_formed"], row["n_censored"]
    if formed == 0 and censored == 0:
        return f"Arm {arm}: formation has not been computed yet."
    if formed == 0:
        ends = [end for end in row["lowers"] if end is not None]
        return (
            f"Arm {arm}: it did not form within the run in any of {censored} evaluated seeds "
            f"(censored; last evaluation at step {max(ends):,})."
        )
    interval = f"{number(row['step_low'])} to {number(row['step_high'])}"
    spread = f"mean ± standard deviation; 95 % interval of the mean {interval}"
    if row["step_sd"] is None:
        spread = "one seed, so no spread"
    late = f"; {censored} censored, so the mean is too early" if censored else ""
    step = plus_minus(row["step_mean"], row["step_sd"])
    return f"Arm {arm}: it formed at step {step} in {formed} of {formed + censored} evaluated seeds ({spread}{late})."


def influence_sentences(subject: Subject, shares: pl.DataFrame, verdict: Trust) -> str:
    """Of which kinds the most influential examples are, against all examples, and whether that may be trusted.

    Args:
        shares: `kind_shares` of the subject. Of one kind alone there is nothing to say.
    """
    where = f"influence on {subject.mechanism} at step {subject.target:,} of run {subject.run}"
    if shares.height < 2:
        return f"For {where}: {verdict.sentence}"
    return (
        f"Of the 5 % of examples with the largest {where}, {listed(shares, 'top')}; of the 5 % with the "
        f"smallest, {listed(shares, 'bottom')}; of all {shares['n'].sum():,} examples "
        f"with an influence, {listed(shares, 'everything')}. {verdict.sentence}"
    )


def listed(shares: pl.DataFrame, column: str) -> str:
    """The shares of the kinds in words, the largest of the top first.

    >>> listed(pl.DataFrame({"kind": ["names", "plain"], "top": [0.9, 0.1]}), "top")
    '90 % are names, 10 % plain'
    >>> listed(pl.DataFrame({"kind": ["names", "plain", "lists"], "top": [0.5, 0.3, 0.2]}), "top")
    '50 % are names, 30 % plain, 20 % lists'
    """
    first, *others = [f"{percent(row[column])} {{}}{row['kind']}" for row in shares.iter_rows(named=True)]
    return ", ".join([first.format("are "), *(other.format("") for other in others)])
