"""What the store holds of an experiment's locked signals."""

import math

import polars as pl

from mech_pipeline.frames import frame
from mech_pipeline.reports.subject import Study
from mech_pipeline.signals.courses import Course


def scores(study: Study) -> pl.DataFrame:
    """Rows of `signal_scores`, with how each signal is read; the chosen one first, then by coverage at the claimed rate."""
    sql = """select s.*, l.reading, l.direction, l.threshold, l.claim from signal_scores s
        join signal_locks l using (experiment, signal, target) where experiment = $name
        order by s.chosen desc, max(s.announced) filter (s.target = l.claim) over (partition by signal) desc,
            s.auroc_equal_time desc, signal, target"""
    return frame(study.connection, sql, name=study.experiment.experiment)


def alarms(study: Study, target: float) -> pl.DataFrame:
    """Rows of `signal_alarms` at one target rate."""
    sql = "select * from signal_alarms where experiment = $name and target = $target order by arm, seed, signal"
    return frame(study.connection, sql, name=study.experiment.experiment, target=target)


def courses(study: Study, signal: str, alarms: pl.DataFrame) -> dict[str, list[Course]]:
    """By arm, one signal over the unseen runs."""
    values = frame(
        study.connection,
        "select run, step, value from signal_values where signal = $signal and run = any($runs::varchar[]) order by run, step",
        signal=signal,
        runs=alarms["run"].unique().sort().to_list(),
    ).partition_by("run", as_dict=True)
    found: dict[str, list[Course]] = {}
    for arm, run, seed, event in alarms.filter(signal=signal).select("arm", "run", "seed", "event").rows():
        steps, told = (values[run,][name].to_list() for name in ("step", "value"))
        numbers = tuple(math.nan if value is None else value for value in told)
        found.setdefault(arm, []).append(Course(run, seed, event, tuple(steps), numbers))
    return found
