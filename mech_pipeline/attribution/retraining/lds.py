"""How good are predictions of removal? Predicted against measured effects of removals that were really retrained.

    predicted(S) = −Σ_{i ∈ S} Σ_s w_is I_is  I_is: influence of example i at update s, w_is: its weight in the run there
    measured(S)  = M(θ_T without S) − M(θ_T)
    LDS          = Spearman's rank correlation of the two over random sets S of one size

1: the order of removals is predicted without a mistake; 0: not at all. Ranks do not see size, so calibration goes beside
it: spreads, and the line measured = slope · predicted + offset (perfect: 1 and 0). An offset is common to all sets of a
size: what it does to train on fewer examples, whichever they are.

Query loss difference: what leaving out the examples of most influence did, beside random sets of the same size; as z, in
standard deviations of those. There the derivative is far outside its range: the order may hold, the size does not.
Sources: Ilyas et al. 2022 (datamodels); Park et al. 2023 (TRAK), definition of the LDS; docs/method.md §2.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mech_pipeline.spec.seeds import numpy_generator
from mech_pipeline.statistics.intervals import bootstrap_interval

RELIABLE_LDS = 0.5
"""A convention: where the interval's lower end is below, predictions are called not reliable."""
Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Score:
    """A linear datamodeling score with its 95 % bootstrap interval over removals.

    Attributes:
        lower, upper: none where resampling gives no interval (hardly any two values differ).
        n: removals.
    """

    value: float
    lower: float | None
    upper: float | None
    n: int


@dataclass(frozen=True)
class Line:
    """measured = slope · predicted + offset, by least squares."""

    slope: float
    offset: float


@dataclass(frozen=True)
class Measure:
    """One number of the comparison, as it is stored."""

    metric: str
    value: float
    lower: float | None
    upper: float | None
    n: int


def random_measures(predicted: Numbers, measured: Numbers, seed: int = 0) -> list[Measure]:
    """What random removals of one size say about predictions, and whether that calls them reliable.

    A number that is undefined is left out, never made up: the score without three removals or where all are alike,
    spreads of one removal, a line through equal predictions.
    """
    n, found = len(measured), list[Measure]()
    if score := linear_datamodeling_score(predicted, measured, seed):
        found.append(Measure("lds", score.value, score.lower, score.upper, n))
        if score.lower is not None:
            found.append(Measure("reliable", float(score.lower >= RELIABLE_LDS), None, None, n))
    line = calibration(predicted, measured)
    others = {
        "predicted_mean": float(predicted.mean()) if n else None,
        "measured_mean": float(measured.mean()) if n else None,
        "predicted_spread": spread(predicted),
        "measured_spread": spread(measured),
        "slope": line.slope if line else None,
        "offset": line.offset if line else None,
    }
    return found + _finite(others, n)


def top_measures(change: float, predicted: float, random: Numbers) -> list[Measure]:
    """What leaving out the examples of most influence did, against what it was predicted to do and against random sets.

    Args:
        change: of the mechanism, without the top examples.
        random: changes without random sets of the same size; may be empty.
    """
    n, sd = len(random), spread(random)
    found = _finite({"query_loss_difference": change, "predicted_difference": predicted}, 1)
    if sd:
        found += _finite({"query_loss_z": (change - float(random.mean())) / sd}, n)
    return found


def matched_measures(change: float, predicted: float) -> list[Measure]:
    """What leaving out a random set of the same kinds as the top did, and was predicted to do."""
    return _finite({"matched_difference": change, "matched_predicted": predicted}, 1)


def _finite(values: dict[str, float | None], n: int) -> list[Measure]:
    return [
        Measure(metric, value, None, None, n)
        for metric, value in values.items()
        if value is not None and math.isfinite(value)
    ]


def linear_datamodeling_score(predicted: Numbers, measured: Numbers, seed: int = 0) -> Score | None:
    """Spearman's ρ of predicted and measured effects; none if it is undefined: under 3 removals, or all alike.

    >>> linear_datamodeling_score(np.array([1.0, 2.0, 3.0, 4.0]), np.array([0.1, 0.2, 0.3, 0.9])).value
    1.0
    >>> linear_datamodeling_score(np.array([1.0, 1.0, 1.0]), np.array([0.1, 0.2, 0.3])) is None
    True
    """
    n = len(predicted)
    if n < 3:
        return None
    (value,) = _rank_correlations(predicted[None], measured[None])
    if np.isnan(value):
        return None
    interval = bootstrap_interval(
        lambda drawn: _rank_correlations(predicted[drawn], measured[drawn]), n, numpy_generator(seed, "lds")
    )
    lower, upper = interval or (None, None)
    return Score(float(value), lower, upper, n)


def score_difference(predicted: Numbers, other: Numbers, measured: Numbers, seed: int = 0) -> Score | None:
    """The score of one estimator minus that of another on the same removals; none if one of them is undefined.

    Both are computed on the same resamples, so what the removals have in common does not widen the interval.

    >>> score_difference(np.array([1.0, 2.0, 3.0]), np.array([3.0, 2.0, 1.0]), np.array([0.1, 0.2, 0.9])).value
    2.0
    """

    def between(one: Numbers, another: Numbers, real: Numbers) -> Numbers:
        return _rank_correlations(one, real) - _rank_correlations(another, real)

    n = len(measured)
    if n < 3:
        return None
    (value,) = between(predicted[None], other[None], measured[None])
    if np.isnan(value):
        return None
    interval = bootstrap_interval(
        lambda drawn: between(predicted[drawn], other[drawn], measured[drawn]), n, numpy_generator(seed, "lds")
    )
    lower, upper = interval or (None, None)
    return Score(float(value), lower, upper, n)


def _rank_correlations(some: Numbers, others: Numbers) -> Numbers:
    """Spearman's ρ of each pair of rows; NaN where a row is constant. Ties share their mean rank."""
    from scipy import stats  # a second to import

    ranks = [stats.rankdata(rows, axis=1) for rows in (some, others)]
    one, other = (rows - rows.mean(axis=1, keepdims=True) for rows in ranks)
    size = np.sqrt((one**2).sum(axis=1) * (other**2).sum(axis=1))
    return np.divide((one * other).sum(axis=1), size, out=np.full(len(size), np.nan), where=size > 0)


def calibration(predicted: Numbers, measured: Numbers) -> Line | None:
    """The least-squares line from predicted to measured; none if there is none: all predictions alike.

    >>> calibration(np.array([0.0, 1.0, 2.0]), np.array([-1.0, 1.0, 3.0]))
    Line(slope=2.0, offset=-1.0)
    """
    if len(predicted) < 2:
        return None
    centred = predicted - predicted.mean()
    if not np.ptp(predicted) > 0 or not centred @ centred > 0:
        return None
    slope = float(centred @ (measured - measured.mean()) / (centred @ centred))
    return Line(slope, float(measured.mean() - slope * predicted.mean()))


def spread(values: Numbers) -> float | None:
    """Sample standard deviation; none of fewer than two values."""
    if len(values) < 2:
        return None
    return float(np.std(values, ddof=1)) if np.ptp(values) > 0 else 0.0
