"""The label of a signal at a target rate of false alarms: one written rule, applied in this order.

    INCONCLUSIVE   fewer than 30 events, or fewer negatives that it speaks in than the target needs even without an alarm
    UNSTABLE       the rate reached on unseen runs is shown to exceed the target (lower end of its interval above it): the
                   locked threshold does not hold
    SUPPORTED      the rate is shown to be below the target (one-sided bound of 95 %), and coverage is shown to exceed it
                   (lower end of its interval above the target): events are announced more often than an alarm at random
    RANK ONLY      events peak above the median negative run that is read equally long (sign test, p < 0.05), but no alarm at
                   this rate is supported
    FAILED         there were enough runs, and none of the above

Baselines get labels by the same rule; a candidate is of use only where it does better than they do.
"""

from typing import Literal

from mech_pipeline.signals.rates import Rate
from mech_pipeline.spec.signals import negatives_needed

Label = Literal["SUPPORTED", "RANK ONLY", "UNSTABLE", "INCONCLUSIVE", "FAILED"]
FEWEST_EVENTS = 30
RANKS = 0.05


def label(false_alarms: Rate, coverage: Rate, target: float, ranks_p: float) -> Label:
    """What may be said.

    >>> from mech_pipeline.signals.rates import rate
    >>> label(rate(0, 60), rate(24, 30), 0.05, 0.5), label(rate(0, 60), rate(24, 30), 0.01, 0.5)
    ('SUPPORTED', 'INCONCLUSIVE')
    >>> label(rate(12, 60), rate(30, 30), 0.05, 0.5), label(rate(3, 60), rate(24, 30), 0.05, 0.001)
    ('UNSTABLE', 'RANK ONLY')
    >>> label(rate(0, 60), rate(2, 30), 0.05, 0.5)
    'FAILED'
    """
    if coverage.of < FEWEST_EVENTS or false_alarms.of < negatives_needed(target):
        return "INCONCLUSIVE"
    if false_alarms.lower > target:
        return "UNSTABLE"
    if false_alarms.bound <= target and coverage.lower > target:
        return "SUPPORTED"
    return "RANK ONLY" if ranks_p < RANKS else "FAILED"
