"""How well a signal tells runs in which the behaviour comes from runs in which it never does, whatever the threshold.

    AUROC          the chance that an event run's peak lies above a negative run's (ties count half)
    at equal time  the same, where each negative run is read only as far as the event run that it is compared with. Of whole
                   runs the negatives are read longer and peak higher for that alone; the elapsed step has 0 there and ½ here.
    AP             average precision over the runs in order of their peaks: Σ (recall_k − recall_{k−1}) precision_k

Of whole runs both are scikit-learn's. Sources: Mann & Whitney 1947; Heagerty & Zheng 2005 (comparison at the time of the
event).
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mech_pipeline.signals.courses import Course, Reading, events, negatives


def auroc(courses: Sequence[Course], reading: Reading, direction: int) -> float:
    """Of whole runs.

    Raises:
        ValueError: events or negatives are missing.
    """
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(*_ranked(courses, reading, direction)))


def auroc_at_equal_time(courses: Sequence[Course], reading: Reading, direction: int) -> float:
    """Each negative run read as far as the event run beside it.

    Raises:
        ValueError: events or negatives are missing.
    """
    return float(np.mean(wins_at_equal_time(courses, reading, direction)))


def wins_at_equal_time(courses: Sequence[Course], reading: Reading, direction: int) -> NDArray[np.float64]:
    """[event run]: the share of negative runs whose peak up to that event lies below its own."""
    coming, never = _both(courses)
    return np.array(
        [
            _wins(one.peak(reading, direction), [other.peak(reading, direction, one.event) for other in never])
            for one in coming
        ]
    )


def average_precision(courses: Sequence[Course], reading: Reading, direction: int) -> float:
    """Of whole runs; the share of event runs is what chance gives.

    Raises:
        ValueError: events or negatives are missing.
    """
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(*_ranked(courses, reading, direction)))


def _ranked(courses: Sequence[Course], reading: Reading, direction: int) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """[run]: whether it has the event, and the rank of its peak; runs in which the signal abstains are last, and tie."""
    runs = [course for group in _both(courses) for course in group]
    _, ranks = np.unique([course.peak(reading, direction) for course in runs], return_inverse=True)
    return np.array([course.event is not None for course in runs]), ranks


def _wins(one: float, others: Sequence[float]) -> float:
    """Share of others below, ties half; two that abstain are a tie."""
    return math.fsum((one > other) + 0.5 * (one == other) for other in others) / len(others)


def _both(courses: Sequence[Course]) -> tuple[list[Course], list[Course]]:
    coming, never = events(courses), negatives(courses)
    if not coming or not never:
        raise ValueError(f"ranking needs runs with the event and without: {len(coming)} and {len(never)}")
    return coming, never
