"""The first page: four answers and the curve of the mechanism that was asked about."""

from matplotlib.figure import Figure

from mech_pipeline.reports.first.card import Card
from mech_pipeline.reports.first.how_sure import how_sure
from mech_pipeline.reports.first.when_and_where import when, which_head
from mech_pipeline.reports.first.which_data import which_data
from mech_pipeline.reports.formation.figures import formation_curves
from mech_pipeline.reports.formation.queries import formation_events, signal_curves
from mech_pipeline.reports.subject import Study
from mech_pipeline.reports.wording import signal_unit

QUESTIONS = (when, which_head, which_data, how_sure)
CURVE = "first_formation.png"
_INCHES = 5.4


def cards(study: Study) -> list[Card]:
    """The answers, in the order in which they are read."""
    return [question(study) for question in QUESTIONS]


def curve(study: Study) -> dict[str, Figure]:
    """The signal of the first formation event over training; nothing before anything is evaluated."""
    signal = study.experiment.formation[0].signal
    found = signal_curves(study.connection, study.runs, signal)
    if found.is_empty():
        return {}
    events = formation_events(study.connection, study.runs)
    return {CURVE: formation_curves(found, events, {signal: signal_unit(signal)}, width_inches=_INCHES)}
