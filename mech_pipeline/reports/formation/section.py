"""The report's sections on formation: a row of results per arm, and the mechanisms over training."""

from dataclasses import dataclass
from typing import Any

from mech_pipeline.mechanisms.registry import DETECTORS, MECHANISMS
from mech_pipeline.reports.formation import figures, queries
from mech_pipeline.reports.section import Section
from mech_pipeline.reports.subject import Study
from mech_pipeline.reports.wording import UNKNOWN, number, plus_minus, signal_name, signal_unit
from mech_pipeline.spec.analysis import Event
from mech_pipeline.spec.experiment import Experiment

CURVES = "formation_curves.png"


@dataclass(frozen=True)
class EventResults:
    """One formation event in words, and one row per arm.

    Attributes:
        since: from which step on it is looked for, if not from the beginning.
        head: heading of the column of the best head; none: no such column.
    """

    name: str
    unit: str
    threshold: str
    sustain: int
    since: str
    head: str | None
    rows: list[dict[str, str]]


def results(study: Study) -> Section:
    """When each event happened, per arm and seed."""
    events = [_event_results(study, event) for event in study.experiment.formation]
    return Section("results", "Results", "formation/results.html", {"events": events})


def curves(study: Study) -> Section:
    """Every mechanism of every run over training."""
    found = queries.mechanism_curves(study.connection, study.runs)
    drawn = {}
    if found.height:
        units = {name: signal_unit(name) for name in study.experiment.mechanisms if name in found["mechanism"]}
        events = queries.formation_events(study.connection, study.runs)
        drawn[CURVES] = figures.formation_curves(found, events, units)
    context = {
        "n_runs": found["run"].n_unique(),
        "mechanisms": {name: MECHANISMS[name] for name in study.experiment.mechanisms},
    }
    return Section("formation", "Formation", "formation/curves.html", context, drawn, empty=not drawn)


def detector_beside(experiment: Experiment, event: Event) -> str | None:
    """Whose best head is shown beside an event: the detector that an event watches, else the experiment's first.

    None where there is no detector, or where the event watches it itself, so that its value is in the table already.
    """
    watched = [each.detector for each in experiment.formation if each.detector is not None]
    detector = next(iter([*watched, *experiment.detectors]), None)
    return None if detector == event.detector else detector


def _event_results(study: Study, event: Event) -> EventResults:
    detector = detector_beside(study.experiment, event)
    table = queries.results_table(study.connection, study.runs, event.signal, detector)
    return EventResults(
        signal_name(event.signal),
        signal_unit(event.signal),
        f"{event.threshold:g}",
        event.sustain,
        event.since,
        None if detector is None else f"best head by {detector} at the end ± sd ({DETECTORS[detector].unit})",
        [_result_row(row) for row in table.iter_rows(named=True)],
    )


def _result_row(row: dict[str, Any]) -> dict[str, str]:
    seeds = zip(row["seeds"], row["steps"], row["lowers"], strict=True)
    interval = f"{number(row['step_low'])} to {number(row['step_high'])}" if row["step_low"] is not None else UNKNOWN
    return {
        "arm": row["arm"],
        "n": str(row["n_seeds"]),
        "censored": str(row["n_censored"]),
        "seeds": "; ".join(_seed_step(*seed) for seed in seeds),
        "step": plus_minus(row["step_mean"], row["step_sd"]),
        "interval": interval,
        "value": plus_minus(row["value_mean"], row["value_sd"]),
        "head": plus_minus(row["head_mean"], row["head_sd"]),
    }


def _seed_step(seed: int, step: int | None, lower: int | None) -> str:
    """One seed's formation step as the interval that the checkpoint grid leaves open."""
    if lower is None:
        return f"s{seed}: not computed"
    if step is None:
        return f"s{seed}: censored, not by {lower:,}"
    return f"s{seed}: {step:,} ({f'after {lower:,}' if lower >= 0 else 'at its first evaluation'})"
