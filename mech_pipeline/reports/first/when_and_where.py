"""When did it form, and in which head? From formation, the best head by the watched detector, and the ledger."""

import polars as pl

from mech_pipeline.reports.first.card import Card, Line
from mech_pipeline.reports.formation.queries import results_per_run
from mech_pipeline.reports.formation.section import detector_beside
from mech_pipeline.reports.heads.queries import best_heads
from mech_pipeline.reports.ledger.queries import OTHER_TERMS, ledger_by_component
from mech_pipeline.reports.subject import Study, Subject
from mech_pipeline.reports.wording import UNKNOWN, plus_minus, signal_name, signal_unit
from mech_pipeline.statistics.intervals import mean_sd


def when(study: Study) -> Card:
    """The step of the first formation event: of the experiment's first arm large, of all arms below."""
    event = study.experiment.formation[0]
    results = results_per_run(study.connection, study.runs, event.signal)
    arms = [(str(key[0]), part) for key, part in results.group_by(["arm"], maintain_order=True)]
    meaning = (
        f"{signal_name(event.signal)} reaches {event.threshold:g} {signal_unit(event.signal)} and stays there for "
        f"{event.sustain} evaluation{'s' if event.sustain > 1 else ''}{event.since}."
    )
    if not arms:
        return Card("When?", UNKNOWN, "results", [Line("Nothing has been evaluated yet.")])
    steps = [float(step) for step in arms[0][1]["step"].drop_nulls()]
    large = f"step {plus_minus(*mean_sd(steps))}" if steps else "not formed"
    return Card("When?", large, "results", [Line(_arm(arm, part)) for arm, part in arms] + [Line(meaning)])


def _arm(arm: str, part: pl.DataFrame) -> str:
    formed = part.drop_nulls("step")
    if formed.is_empty():
        known = part.drop_nulls("lower")
        if known.is_empty():
            return f"{arm}: formation has not been computed yet."
        last, n = max(known["lower"].to_list()), known.height
        return f"{arm}: not by step {last:,} in any of {n} seed{_s(n)} (censored)."
    seeds = ", ".join(f"s{row['seed']} in ({row['lower']:,}, {row['step']:,}]" for row in formed.iter_rows(named=True))
    return f"{arm}: {formed.height} of {part.height} seed{_s(part.height)}: {seeds}."


def _s(n: int) -> str:
    return "" if n == 1 else "s"


def which_head(study: Study) -> Card:
    """The best head by the detector at the end of the first run, of the other runs below; then the ledger's head."""
    event = study.experiment.formation[0]
    detector = event.detector or detector_beside(study.experiment, event)
    lines, large = [], UNKNOWN
    if detector is not None:
        best = best_heads(study.connection, study.runs, detector)
        formed = set(results_per_run(study.connection, study.runs, event.signal).drop_nulls("step")["run"])
        shown = [row for row in best.iter_rows(named=True) if row["run"] in formed] or best.to_dicts()
        if shown:
            large = f"L{shown[0]['layer']}H{shown[0]['head']}"
            heads = ", ".join(f"{r['arm']} s{r['seed']} L{r['layer']}H{r['head']} ({r['value']:.2f})" for r in shown)
            lines.append(Line(f"Best head by {detector} at the end: {heads}."))
    for subject in study.ledgers[:1]:
        told = _ledger_heads(study, subject)
        if told:
            large = told[0][0] if large == UNKNOWN else large
            parts = ", ".join(f"{name} {value:+.2f}" for name, value in told[:3])
            lines.append(
                Line(f"Most by ledger, up to step {subject.target:,}, through the weights of {parts} {subject.unit}.")
            )
    return Card("Which head?", large, "heads", lines or [Line("No head scores and no ledger by component.")])


def _ledger_heads(study: Study, subject: Subject) -> list[tuple[str, float]]:
    """Components by what their weights did to the mechanism, the largest first; the terms without examples left out."""
    found = ledger_by_component(study.connection, subject.run, subject.mechanism)
    here = found.filter((pl.col("step") <= subject.target) & ~pl.col("group").is_in([*OTHER_TERMS, "other"]))
    last = here.filter(pl.col("step") == pl.col("step").max()).sort("value", descending=True)
    return [(row["group"], row["value"]) for row in last.iter_rows(named=True)]
