"""Predicted against measured: what influence says that treating examples does, and what it did when the run was trained.

Leaving example i out, showing it twice or weighing it otherwise changes the weights of its loss, and to first order

    predicted = Σ_{i, s} (w'_{i,s} − w_{i,s}) · I(i, s),     measured = M(arm, target step) − M(baseline, target step)

Influence predicts; the ledger explains what happened and is not used here.

    rank correlation   Spearman's ρ over all runs of all treating arms
    slope, offset      least squares, measured = offset + slope · predicted; 1 and 0 where predictions are calibrated

Intervals resample seeds, each with all its arms, because runs of one seed share their baseline. A treatment of 5 % of the
examples is far outside the linear range: a slope far below 1 is then expected, and rank is what may be hoped for.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mech_pipeline.spec.seeds import numpy_generator
from mech_pipeline.statistics.intervals import bootstrap_interval

Numbers = NDArray[np.float64]
_FEWEST = 3


@dataclass(frozen=True)
class Measure:
    """A number with its interval of 95 %; none where it is undefined."""

    name: str
    value: float | None
    lower: float | None
    upper: float | None
    n: int


def calibration(predicted: Numbers, measured: Numbers, seeds: NDArray[np.int64]) -> list[Measure]:
    """Rank correlation, slope and offset over runs.

    >>> x = np.array([-3.0, -2.0, 0.0, 1.0])
    >>> [(m.name, round(m.value, 6)) for m in calibration(x, 0.5 * x + 1, np.arange(4))]
    [('rank_correlation', 1.0), ('slope', 0.5), ('offset', 1.0)]
    """
    members = [np.flatnonzero(seeds == seed) for seed in sorted(set(seeds.tolist()))]
    values = _measures(predicted, measured)
    found = []
    for which, (name, value) in enumerate(zip(("rank_correlation", "slope", "offset"), values, strict=True)):
        if not np.isfinite(value):
            found.append(Measure(name, None, None, None, len(predicted)))
            continue
        lower, upper = _interval(predicted, measured, members, which) or (None, None)
        found.append(Measure(name, value, lower, upper, len(predicted)))
    return found


def _interval(
    predicted: Numbers, measured: Numbers, members: list[NDArray[np.int64]], which: int
) -> tuple[float, float] | None:
    """Of one of the measures, over resampled seeds; none with fewer than three."""
    if len(members) < _FEWEST:
        return None

    def resampled(drawn: NDArray[np.int64]) -> Numbers:
        places = [np.concatenate([members[seed] for seed in row]) for row in drawn]
        return np.array([_measures(predicted[each], measured[each])[which] for each in places])

    return bootstrap_interval(resampled, len(members), numpy_generator(0, f"calibration {which}"))


def _measures(predicted: Numbers, measured: Numbers) -> tuple[float, float, float]:
    """(Spearman's ρ, slope, offset); NaN with fewer than three runs, or without spread."""
    from scipy.stats import rankdata

    if len(predicted) < _FEWEST or predicted.std() == 0 or measured.std() == 0:
        return float("nan"), float("nan"), float("nan")
    slope = float(np.cov(predicted, measured, bias=True)[0, 1] / predicted.var())
    rank = float(np.corrcoef(rankdata(predicted), rankdata(measured))[0, 1])
    return rank, slope, float(measured.mean() - slope * predicted.mean())
