"""How sure is a number? Spread over a few values, Student's interval of a mean, percentile bootstrap of anything.

    sd = √( Σ (x − mean)² / (n − 1) )
    t-interval of the mean:  mean ± t(n − 1, (1 + level) / 2) · sd / √n
    percentile bootstrap:    the (1 − level) / 2 and (1 + level) / 2 quantiles of the statistic over resamples of the
                             n observations, drawn with replacement

The t-interval takes the values as independent and roughly normal; with three seeds it is wide, and rightly so. The
bootstrap takes the observations as independent and is too narrow for fewer than some twenty of them.
Sources: Student 1908; Efron & Tibshirani 1993, §13.3 (percentile interval).
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
RESAMPLES = 2000


def mean_sd(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean and sample standard deviation (n − 1 in the denominator); none where they are undefined.

    >>> mean_sd([1.0, 3.0])
    (2.0, 1.4142135623730951)
    >>> mean_sd([1.0])
    (1.0, None)
    """
    if not values:
        return None, None
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return mean, None
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def t_interval(values: Sequence[float], level: float = LEVEL) -> tuple[float | None, float | None]:
    """Student's t-interval of the mean; none below two values.

    With three values the 97.5 % point is 4.303, from a printed table:

    >>> low, high = t_interval([20.0, 30.0, 40.0])
    >>> round((high - 30) * 3**0.5 / 10, 3), round(30 - low, 9) == round(high - 30, 9)
    (4.303, True)
    >>> t_interval([1.0])
    (None, None)
    """
    from scipy.special import stdtrit  # `scipy.stats` takes a second to load

    mean, sd = mean_sd(values)
    if mean is None or sd is None:
        return None, None
    half_width = float(stdtrit(len(values) - 1, (1 + level) / 2)) * sd / math.sqrt(len(values))
    return mean - half_width, mean + half_width


def bootstrap_interval(
    statistic: Callable[[NDArray[np.int64]], NDArray[np.float64]],
    n: int,
    generator: np.random.Generator,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> tuple[float, float] | None:
    """Percentile bootstrap interval; none where the statistic is undefined in more than half of the resamples.

    Args:
        statistic: from the places of the observations drawn, one resample a row, to its value for each row; NaN where it
            is undefined.
        n: observations.
        generator: of the resamples; the same one gives the same interval.

    >>> from mech_pipeline.spec.seeds import numpy_generator
    >>> values = np.arange(100.0)
    >>> low, high = bootstrap_interval(lambda drawn: values[drawn].mean(axis=1), 100, numpy_generator(0, "example"))
    >>> half = 1.96 * values.std() / 100**0.5  # what the normal approximation says
    >>> bool(abs(low - (49.5 - half)) < 0.5 and abs(high - (49.5 + half)) < 0.5)
    True
    >>> bootstrap_interval(lambda drawn: np.full(len(drawn), np.nan), 5, numpy_generator(0, "example")) is None
    True
    """
    found = statistic(generator.integers(0, n, (resamples, n)))
    found = found[~np.isnan(found)]
    if len(found) < resamples / 2:
        return None
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
