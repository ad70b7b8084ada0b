"""Whether a run rings, by the alarm that its experiment has locked: known while the run trains, from checkpoint to checkpoint."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from mech_pipeline.pipeline.signals.lock_rows import stored_lock
from mech_pipeline.signals.courses import Course
from mech_pipeline.signals.locking import Rule
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.store.store import Store


@dataclass(frozen=True)
class Alert:
    """The locked alarm, listening to a run.

    Attributes:
        threshold: at the claimed rate of false alarms; +∞: it never rings.
        claim: that rate, per run.
        step: at which it rang first; none: it has not.
    """

    run: str
    rule: Rule
    threshold: float
    claim: float
    step: int | None

    @property
    def words(self) -> str:
        """What has been heard, in a sentence."""
        sign = "" if self.rule.direction == 1 else "−"
        heard = f"{sign}{self.rule.signal} ({self.rule.reading}) above {self.threshold:.4g}"
        if self.step is None:
            return f"quiet: no {heard} so far"
        return f"ALARM in {self.run} at step {self.step:,}: {heard}, locked for false alarms in less than {self.claim:g} of runs"

    def over(self, values: Mapping[int, float]) -> "Alert":
        """The same alarm after these values, by rising step."""
        course = Course(self.run, 0, None, tuple(values), tuple(values.values()))
        return replace(self, step=course.alarm(self.rule.reading, self.rule.direction, self.threshold))


def alert_of(store: Store, spec: RunSpec) -> Alert | None:
    """What the locked alarm says of the run's stored values; none: no lock, or the run does not measure its signal.

    Raises:
        MechError: the store holds parts of several locks.
    """
    alarm = locked_alarm(store, spec)
    if alarm is None:
        return None
    with store.reading("signal_values", of=[spec.run]) as connection:
        rows = connection.execute(
            "select step, value from signal_values where run = ? and signal = ? order by step",
            [spec.run, alarm.rule.signal],
        ).fetchall()
    return alarm.over({step: math.nan if value is None else value for step, value in rows})


def locked_alarm(store: Store, spec: RunSpec) -> Alert | None:
    """The alarm of the run's experiment, before it has heard anything; none: as `alert_of`.

    Raises:
        MechError: the store holds parts of several locks.
    """
    with store.reading("signal_locks") as connection:
        found = connection.execute("select 1 from signal_locks where experiment = ? limit 1", [spec.experiment])
        if found.fetchone() is None:
            return None
    lock, _ = stored_lock(store, spec.experiment)
    if lock.chosen not in spec.signals:
        return None
    rule, threshold = lock.rules[lock.chosen], lock.rules[lock.chosen].thresholds[lock.claim]
    return Alert(spec.run, rule, threshold, lock.claim, None)
