"""What could so few pairs have shown? The smallest mean difference that a paired test finds with a given chance.

    power(δ) = P( |t'| > t(n − 1, 1 − level / 2) ),  t' noncentral t with n − 1 degrees of freedom, noncentrality δ √n / sd

Extremes: δ = 0 gives power = level; it grows with δ to 1. The sign-flip test has nearly the same power, as long as its
smallest p, 2^(1 − n), lies below the level at all; a caller looks at that.
Source: Cohen 1988, §2.3 (paired means), whose tables it gives; noncentral t by `scipy.stats`.
"""

import math

POWER = 0.8


def power(shift: float, sd: float, n: int, level: float) -> float:
    """Chance that n differences of this mean and standard deviation are told from 0.

    >>> round(power(0.0, 1.0, 10, 0.05), 6)
    0.05
    """
    from scipy.stats import nct, t

    edge, centre = t.isf(level / 2, n - 1), shift * math.sqrt(n) / sd
    if centre == 0:
        return level
    return float(nct.sf(edge, n - 1, centre) + nct.cdf(-edge, n - 1, centre))


def detectable(sd: float, n: int, level: float, chance: float = POWER) -> float | None:
    """The mean difference that n pairs show with that chance, in the unit of `sd`; none without spread or a second pair.

    Cohen's table: ten pairs, 5 %, a chance of 80 %: one standard deviation.

    >>> round(detectable(2.0, 10, 0.05), 1), detectable(0.0, 10, 0.05), detectable(1.0, 1, 0.05)
    (2.0, None, None)
    """
    from scipy.optimize import brentq

    if n < 2 or sd <= 0:
        return None
    largest = 1.0
    while power(largest, 1.0, n, level) < chance:
        largest *= 2
    return sd * float(brentq(lambda shift: power(shift, 1.0, n, level) - chance, 0.0, largest))
