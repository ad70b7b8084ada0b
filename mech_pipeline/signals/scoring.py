"""Lock → evaluate: how a locked signal does on runs that nobody has looked at.

Per signal and target rate of false alarms: the rate that is reached (per run, with its exact interval), what the number of
negatives could show at best, the share of events that are announced (coverage), and how long before (lead, in updates and
as a share of the event's step). A run in which the signal abstains throughout is no evidence for or against false alarms,
and an event that it does not announce.
Protocol: explore → lock → evaluate, as in the GMB benchmark of grokking alarms; the label's rule is in `verdict.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mech_pipeline.errors import MechError
from mech_pipeline.signals.courses import Course, events, negatives
from mech_pipeline.signals.locking import Lock, Rule
from mech_pipeline.signals.ranking import auroc, auroc_at_equal_time, average_precision, wins_at_equal_time
from mech_pipeline.signals.rates import Rate, floor, rate
from mech_pipeline.signals.verdict import Label, label
from mech_pipeline.spec.signals import negatives_needed

Quartiles = tuple[float, float, float]
"""Lower quartile, median, upper quartile."""


@dataclass(frozen=True)
class Score:
    """One locked signal at one target rate, on unseen runs.

    Attributes:
        floor: the smallest rate of false alarms that this many negatives can show.
        lead: from alarm to event, in updates; none if nothing was announced.
        lead_share: the same as a share of the event's step.
        abstained_events, abstained_negatives: runs in which the signal has no value that counts.
        ranks_p: one-sided p of a sign test that events peak above the median negative read equally long.
    """

    signal: str
    target: float
    false_alarms: Rate
    floor: float
    coverage: Rate
    auroc: float
    auroc_equal_time: float
    average_precision: float
    lead: Quartiles | None
    lead_share: Quartiles | None
    abstained_events: int
    abstained_negatives: int
    ranks_p: float
    label: Label


def evaluate(lock: Lock, signal: str, courses: Sequence[Course], *, sha256: str) -> list[Score]:
    """Scores of one locked signal at every target, on unseen runs.

    Args:
        sha256: the lock's hash as it was written down when it was made.

    Raises:
        MechError: the lock is not the one that was written down, the signal is not in it, a run was explored, or there are
            too few runs for any claim; the message says how many are needed.
    """
    _check(lock, signal, courses, sha256)
    rule = lock.rules[signal]
    return [_score(rule, target, courses) for target in sorted(rule.thresholds)]


def _check(lock: Lock, signal: str, courses: Sequence[Course], sha256: str) -> None:
    if lock.sha256 != sha256:
        raise MechError(
            f"the lock has hash {lock.sha256[:12]}, and {sha256[:12]} was written down when it was made: it was changed",
            "evaluate the lock as it was made, or explore anew on seeds that are not evaluated",
        )
    if signal not in lock.rules:
        raise MechError(
            f"signal {signal!r} was not locked, and these runs are unseen: locked are {', '.join(sorted(lock.rules))}",
            "explore it under another name of the experiment, with other seeds to evaluate",
        )
    if seen := sorted({course.seed for course in courses} & set(lock.seeds)):
        raise MechError(f"seed {seen[0]} was explored, so it is not unseen", "evaluate seeds that are not explored")
    coming, never = events(courses), negatives(courses)
    if not coming:
        raise MechError("no unseen run has the event: there is nothing to announce", "add seeds to the arm of events")
    check_negatives(len(never), max(lock.rules[signal].thresholds))


def check_negatives(there: int, claim: float) -> None:
    """Whether so many unseen negatives can show a rate of false alarms below the claim.

    Raises:
        MechError: they cannot, however well the signal does.
    """
    if there < (needed := negatives_needed(claim)):
        raise MechError(
            f"{there or 'no'} unseen negative runs cannot show a rate of false alarms below {claim:g}: "
            f"without a single alarm they show one below {floor(there):.2f}",
            f"{needed} are needed: add seeds, or arms to signals.negatives",
        )


def _score(rule: Rule, target: float, courses: Sequence[Course]) -> Score:
    how, threshold = (rule.reading, rule.direction), rule.thresholds[target]
    coming, never = events(courses), negatives(courses)
    heard = [course for course in never if course.peak(*how) > -np.inf]
    alarms = [(course.alarm(*how, threshold), course.event) for course in coming]
    leads = [(event - alarm, (event - alarm) / event) for alarm, event in alarms if alarm is not None and event]
    false = rate(sum(course.alarm(*how, threshold) is not None for course in heard), len(heard)) if heard else NOTHING
    coverage, p = rate(len(leads), len(coming)), _ranks(courses, rule)
    return Score(
        rule.signal,
        target,
        false,
        floor(len(heard)),
        coverage,
        auroc(courses, *how),
        auroc_at_equal_time(courses, *how),
        average_precision(courses, *how),
        _quartiles([float(lead) for lead, _ in leads]),
        _quartiles([share for _, share in leads]),
        sum(course.peak(*how) == -np.inf for course in coming),
        len(never) - len(heard),
        p,
        label(false, coverage, target, p),
    )


NOTHING = Rate(0, 0, 0.0, 1.0, 1.0)
"""The rate of false alarms of a signal that abstains in every negative run: nothing is known."""


def _ranks(courses: Sequence[Course], rule: Rule) -> float:
    """Sign test over event runs, which are independent: does an event peak above more than half of the negatives?"""
    from scipy.stats import binomtest

    wins = wins_at_equal_time(courses, rule.reading, rule.direction)
    decided = wins[wins != 0.5]
    return (
        float(binomtest(int((decided > 0.5).sum()), len(decided), alternative="greater").pvalue)
        if len(decided)
        else 1.0
    )


def _quartiles(values: Sequence[float]) -> Quartiles | None:
    if not values:
        return None
    low, middle, high = np.quantile(np.array(values, dtype=np.float64), [0.25, 0.5, 0.75]).tolist()
    return low, middle, high
