"""Explore → lock: what is decided on the runs that may be looked at, hashed, so that nothing is decided afterwards.

For every signal: the reading and direction that tell explored events from explored negatives best (AUROC at equal time),
and for every target rate of false alarms a threshold. At most k of the n explored negatives may peak above it, k being the
largest count that still shows a rate below the target (none, if no count does); of the thresholds that do the same to the
explored runs it is the middle one, half-way to the next event's peak. And the one signal that is chosen: of largest coverage on
the explored runs at the claimed rate, ties by AUROC. The lock's hash is over all of it and over the values that it was made from.
"""

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mech_pipeline.errors import MechError
from mech_pipeline.signals.courses import READINGS, Course, Reading, events, negatives
from mech_pipeline.signals.ranking import auroc_at_equal_time
from mech_pipeline.signals.rates import allowed
from mech_pipeline.spec.fingerprint import fingerprint

TARGETS = (0.01, 0.05, 0.10)
"""Rates of false alarms, per run, at which every signal is scored."""
NEVER = math.inf
"""Threshold of a signal that must not alarm at all."""


@dataclass(frozen=True)
class Rule:
    """When one signal alarms.

    Attributes:
        direction: 1: large values are suspicious; −1: small ones.
        thresholds: of the turned reading, by target rate.
        explored: AUROC at equal time on the explored runs.
    """

    signal: str
    reading: Reading
    direction: int
    thresholds: Mapping[float, float]
    explored: float

    def plain(self) -> dict[str, Any]:
        """As plain data, for the hash and for the store."""
        thresholds = {repr(target): repr(value) for target, value in self.thresholds.items()}
        return {
            "signal": self.signal,
            "reading": self.reading,
            "direction": self.direction,
            "thresholds": thresholds,
            "explored": repr(self.explored),
        }


@dataclass(frozen=True)
class Lock:
    """All that is decided before unseen runs are looked at.

    Attributes:
        rules: by signal.
        chosen: the signal that the claim is made for.
        claim: rate of false alarms that it is to stay below.
        seeds: that were explored; no run of these is evaluated.
        made_from: fingerprint of the explored values.
    """

    rules: Mapping[str, Rule]
    chosen: str
    claim: float
    seeds: tuple[int, ...]
    made_from: str

    @property
    def sha256(self) -> str:
        """The hash by which a change is noticed."""
        rules = [self.rules[name].plain() for name in sorted(self.rules)]
        return fingerprint("lock of signals", rules, self.chosen, repr(self.claim), list(self.seeds), self.made_from)


def targets(claim: float) -> tuple[float, ...]:
    """The rates at which signals are scored, the claimed one among them, rising."""
    return tuple(sorted({*TARGETS, claim}))


def lock(explored: Mapping[str, Sequence[Course]], claim: float) -> Lock:
    """Decides everything, by the explored runs.

    Args:
        explored: of every signal, its course in each explored run.

    Raises:
        MechError: no signal, no event, no negative among them, or another course for one signal than for the others.
    """
    if not explored:
        raise MechError("no signal is to be locked", "name some in signals.measure")
    runs = {tuple(sorted((course.run, course.event or -1) for course in courses)) for courses in explored.values()}
    if len(runs) != 1:
        raise MechError("signals were explored on different runs", "measure all signals on all runs first")
    some = next(iter(explored.values()))
    for what, found in (("event", events(some)), ("negative run", negatives(some))):
        if not found:
            raise MechError(
                f"among the {len(some)} explored runs there is no {what}: nothing to tell apart",
                "add seeds to signals.explore_seeds, or arms to signals.events and signals.negatives",
            )
    rules = {signal: _rule(signal, courses, targets(claim)) for signal, courses in explored.items()}
    chosen = max(rules, key=lambda name: (_coverage(rules[name], explored[name], claim), rules[name].explored))
    return Lock(rules, chosen, claim, tuple(sorted({course.seed for course in some})), _made_from(explored))


def _rule(signal: str, courses: Sequence[Course], rates: Sequence[float]) -> Rule:
    options: list[tuple[Reading, int]] = [(reading, direction) for reading in READINGS for direction in (1, -1)]
    found = {option: auroc_at_equal_time(courses, *option) for option in options}
    reading, direction = max(options, key=lambda option: found[option])
    below, above = (
        [course.peak(reading, direction) for course in group] for group in (negatives(courses), events(courses))
    )
    thresholds = {each: _threshold(below, above, each) for each in rates}
    return Rule(signal, reading, direction, thresholds, found[reading, direction])


def _threshold(negative_peaks: Sequence[float], event_peaks: Sequence[float], target: float) -> float:
    """Above it lie as many negatives as are allowed. Where all negatives abstain, nothing is known: no alarm.

    >>> _threshold([4.0, 3.0, 2.0, 1.0], [8.0, 6.0, 3.5], 0.05), _threshold([1.0], [], 0.05)
    (5.0, 1.0)
    """
    defined = sorted((peak for peak in negative_peaks if peak > -math.inf), reverse=True)
    if not defined:
        return NEVER
    bound = defined[allowed(len(defined), target)]
    coming = sorted(event_peaks)
    higher = coming[bisect_right(coming, bound) :]
    return bound + (higher[0] - bound) / 2 if higher else bound


def _coverage(rule: Rule, courses: Sequence[Course], target: float) -> float:
    coming = events(courses)
    alarms = [course.alarm(rule.reading, rule.direction, rule.thresholds[target]) for course in coming]
    return sum(alarm is not None for alarm in alarms) / len(coming)


def _made_from(explored: Mapping[str, Sequence[Course]]) -> str:
    return fingerprint(
        [
            [
                signal,
                course.run,
                course.seed,
                course.event,
                list(course.steps),
                [repr(value) for value in course.values],
            ]
            for signal in sorted(explored)
            for course in sorted(explored[signal], key=lambda course: course.run)
        ]
    )
