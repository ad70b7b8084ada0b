"""Long work speaks: done, total, rate and time left.

Research code takes a `Report` callback and calls it with the number of units done; what is shown, and where
(a terminal line, a Dagster log line), is decided by whoever passes the callback. What is emitted is a sentence, or how
far one piece of work is, with its fields.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

Report = Callable[[int], None]
Note = Callable[[float], str]
"""What else is worth saying, given the rate in units per second; asked only when a line is due."""


@dataclass(frozen=True)
class Progressed:
    """How far one piece of work is.

    Attributes:
        label: what is being done; one piece of work has one label.
        rate: units per second since it began here; 0 while nothing is known.
        seconds: since it began.
        left: seconds until it is done, if that can be said.
        note: what else is worth saying.
    """

    label: str
    done: int
    total: int
    unit: str
    rate: float
    seconds: float
    left: float | None
    note: str = ""

    @property
    def is_finished(self) -> bool:
        """Whether all is done."""
        return self.done >= self.total

    def __str__(self) -> str:
        """One line, for example `train s0: 400/1600 updates, 41.0/s, loss 3.127 nats, 29 s left`."""
        left = "time left unknown" if self.left is None else f"{format_seconds(self.left)} left"
        if self.is_finished:
            left = f"took {format_seconds(self.seconds)}"
        said = f"{self.note}, " if self.note else ""
        return f"{self.label}: {self.done}/{self.total} {self.unit}, {self.rate:.1f}/s, {said}{left}"


Said = str | Progressed
Emit = Callable[[Said], None]
"""Receives sentences and progress, as they come."""


def ignore_progress(done: int) -> None:
    """The callback for callers that show nothing."""


@dataclass
class Progress:
    """Turns "n units done" into at most one line every `interval_seconds`, and always a last one.

    Args:
        emit: receives how far it is.
        label: what is being done, for example "train induction.baseline.s0".
        total: units in all.
        unit: plural noun for the units, for example "updates".
        start: units that were found done already; they do not count for the rate.
    """

    emit: Emit
    label: str
    total: int
    unit: str = "steps"
    start: int = 0
    interval_seconds: float = 2.0
    _began: float = field(default_factory=time.monotonic)
    _last: float = 0.0

    def __call__(self, done: int, note: Note | None = None) -> None:
        now = time.monotonic()
        if done < self.total and now - self._last < self.interval_seconds:
            return
        self._last = now
        self.emit(self.at(done, now - self._began, note))

    def at(self, done: int, elapsed_seconds: float, note: Note | None = None) -> Progressed:
        """How far it is after some time."""
        rate = (done - self.start) / elapsed_seconds if elapsed_seconds > 0 else 0.0
        left = (self.total - done) / rate if rate > 0 else None
        said = note(rate) if note else ""
        return Progressed(self.label, done, self.total, self.unit, rate, elapsed_seconds, left, said)


def format_count(number: float) -> str:
    """950, 84k, 1.3M."""
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if number >= size:
            scaled = number / (1e3 if suffix == "k" else size)
            return f"{scaled:.1f}{suffix}" if scaled < 10 else f"{scaled:.0f}{suffix}"
    return f"{number:.0f}"


def format_seconds(seconds: float) -> str:
    """4 s, 2 min 05 s, 3 h 10 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
