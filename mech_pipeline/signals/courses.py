"""The course of one signal in one run, and what can be read off it without looking ahead.

A run alarms at the first checkpoint at which a reading of its signal, turned so that up is suspicious, lies above a
threshold. Every reading of a checkpoint uses that checkpoint and earlier ones alone:

    level    the value
    change   the value minus the first one of the run
    slope    the value minus the one three checkpoints before

Of an event run only what comes before the event counts; of a negative run, everything: an alarm at any time is false.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Reading = Literal["level", "change", "slope"]
READINGS: tuple[Reading, ...] = ("level", "change", "slope")
_BACK = 3


@dataclass(frozen=True)
class Course:
    """One signal over the checkpoints of one run.

    Attributes:
        event: step at which the behaviour was first there; none: a negative run, which never has it.
        steps: of the checkpoints, rising.
        values: at these; NaN where the signal abstains.
    """

    run: str
    seed: int
    event: int | None
    steps: tuple[int, ...]
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.steps) != len(self.values) or list(self.steps) != sorted(set(self.steps)):
            raise ValueError(f"run {self.run}: a course has one value at each of its rising steps")

    def readings(self, reading: Reading, direction: int) -> NDArray[np.float64]:
        """The reading at every step, larger is more suspicious; NaN where there is none.

        >>> course = Course("x", 0, None, (0, 10, 20, 30), (5.0, 6.0, 8.0, 4.0))
        >>> course.readings("change", 1).tolist(), course.readings("slope", -1).tolist()
        ([0.0, 1.0, 3.0, -1.0], [nan, nan, nan, 1.0])
        """
        values = np.array(self.values, dtype=np.float64)
        values[~np.isfinite(values)] = np.nan
        if reading == "change":
            defined = values[~np.isnan(values)]
            values = values - (defined[0] if len(defined) else np.nan)
        elif reading == "slope":
            before = np.concatenate([np.full(min(_BACK, len(values)), np.nan), values[:-_BACK]])
            values = values - before
        return direction * values

    def peak(self, reading: Reading, direction: int, until: int | None = None) -> float:
        """The most suspicious reading before a step; −∞ if the signal abstains all the way.

        Args:
            until: default: the event; of a negative run, the end.
        """
        end = self.event if until is None else until
        seen = self.readings(reading, direction)[: self._before(end)]
        return -math.inf if np.isnan(seen).all() else float(np.nanmax(seen))

    def alarm(self, reading: Reading, direction: int, threshold: float) -> int | None:
        """The first step before the event at which the reading lies above the threshold; none: no alarm.

        >>> course = Course("x", 0, 30, (0, 10, 20, 30), (5.0, 6.0, 8.0, 9.0))
        >>> course.alarm("level", 1, 7.0), course.alarm("level", 1, 8.5)
        (20, None)
        """
        seen = self.readings(reading, direction)[: self._before(self.event)]
        above = np.flatnonzero(seen > threshold)  # NaN is never above
        return self.steps[int(above[0])] if len(above) else None

    def _before(self, end: int | None) -> int:
        return len(self.steps) if end is None else int(np.searchsorted(self.steps, end))


def events(courses: Sequence[Course]) -> list[Course]:
    """The runs with the behaviour."""
    return [course for course in courses if course.event is not None]


def negatives(courses: Sequence[Course]) -> list[Course]:
    """The runs without."""
    return [course for course in courses if course.event is None]
