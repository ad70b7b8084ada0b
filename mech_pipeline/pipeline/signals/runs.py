"""The runs of an experiment as scoring sees them: events, negatives, and those that are left out because they came otherwise."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from mech_pipeline.pipeline.analysis.formation import stored_formation
from mech_pipeline.signals.courses import Course
from mech_pipeline.spec.experiment import Experiment
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.store.store import Store


@dataclass(frozen=True)
class Cast:
    """Courses of every signal over some runs.

    Attributes:
        courses: by signal.
        not_formed: runs of event arms without the event.
        formed_anyway: runs of negative arms with it.
    """

    courses: dict[str, list[Course]]
    not_formed: int
    formed_anyway: int


def event_name(experiment: Experiment) -> str:
    """The formation event that is to be announced."""
    return experiment.signals.event or experiment.formation[0].signal


def scored_runs(experiment: Experiment, *, explored: bool) -> list[RunSpec]:
    """The runs of events and negatives: those that may be explored, or the others."""
    signals = experiment.signals
    arms = {*signals.events, *signals.negatives}
    return [spec for spec in experiment.runs() if spec.arm in arms and (spec.seed in signals.explore_seeds) == explored]


def cast(store: Store, experiment: Experiment, specs: Iterable[RunSpec]) -> Cast:
    """Reads values and events of some runs."""
    signals, event = experiment.signals, event_name(experiment)
    courses: dict[str, list[Course]] = {name: [] for name in signals.measure}
    not_formed = formed_anyway = 0
    for spec in specs:
        step = stored_formation(store, spec.run)[event]
        if spec.arm in signals.events and step is None:
            not_formed += 1
        elif spec.arm in signals.negatives and step is not None:
            formed_anyway += 1
        else:
            values = _values(store, spec.run)
            for name in signals.measure:
                steps = sorted(values[name])
                found = tuple(values[name][each] for each in steps)
                courses[name].append(Course(spec.run, spec.seed, step, tuple(steps), found))
    return Cast(courses, not_formed, formed_anyway)


def _values(store: Store, run: str) -> dict[str, dict[int, float]]:
    """By signal and step; NaN where it abstains."""
    with store.reading("signal_values", of=[run]) as connection:
        rows = connection.execute("select signal, step, value from signal_values where run = ?", [run]).fetchall()
    found: dict[str, dict[int, float]] = {}
    for signal, step, value in rows:
        found.setdefault(signal, {})[step] = math.nan if value is None else value
    return found
