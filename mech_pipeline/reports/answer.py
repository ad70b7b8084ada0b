"""The answer of an experiment in sentences, made from numbers only: when it formed, in which arm, from what text."""

from typing import Any

import polars as pl

from mech_pipeline.reports.influence.sections import InfluenceSection
from mech_pipeline.reports.wording import number, percent, plus_minus, signal_name, signal_unit
from mech_pipeline.spec.experiment import Experiment


def answer(experiment: Experiment, results: pl.DataFrame, influence: list[InfluenceSection]) -> str:
    """One paragraph: formation of the first event per arm, then the tiled share of the most influential examples.

    Args:
        results: `queries.results_table` of the first formation event.
        influence: what is shown of influence; that on the event's own mechanism is spoken of, else the first.
    """
    if results.is_empty():
        return "Nothing has been evaluated yet: no run of this experiment has values in the store."
    event = experiment.formation[0]
    sentences = [
        f"Formation here means: {signal_name(event.signal)} reaches {event.threshold:g} {signal_unit(event.signal)} "
        f"and stays there for {event.sustain} evaluation{'s' if event.sustain > 1 else ''} in a row."
    ]
    sentences += [arm_sentence(row) for row in results.iter_rows(named=True)]
    watched = [section for section in influence if section.mechanism == event.mechanism] or influence
    return " ".join(sentences + [influence_sentences(section) for section in watched[:1]])


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


def influence_sentences(section: InfluenceSection) -> str:
    """What share of the most influential examples is tiled, against all examples, and whether that may be trusted."""
    if not section.tiled_all:
        return f"For influence on {section.mechanism} at step {section.target:,} of run {section.run}: {section.trust.sentence}"
    return (
        f"Of the 5 % of examples with the largest influence on {section.mechanism} at step {section.target:,} of run "
        f"{section.run}, {percent(section.tiled_top)} are tiled; of all {section.n_examples:,} examples with an "
        f"influence, {percent(section.tiled_all)} are. {section.trust.sentence}"
    )
