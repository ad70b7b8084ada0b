"""What a count can show: exact intervals, and how many runs without the behaviour a claim needs.

    0 alarms in n negative runs show a rate below 1 − 0.05^(1/n) (one-sided, 95 %): 59 runs are needed for 5 %, 29 for 10 %.

Source: Clopper & Pearson 1934; computed by `scipy.stats`.
"""

from dataclasses import dataclass

from mech_pipeline.spec.signals import CONFIDENCE


@dataclass(frozen=True)
class Rate:
    """A share of runs, with what it may truly be.

    Attributes:
        lower, upper: Clopper–Pearson interval of 95 %, two-sided.
        bound: one-sided upper bound of 95 %: the rate is shown to be below this.
    """

    count: int
    of: int
    lower: float
    upper: float
    bound: float

    @property
    def value(self) -> float:
        """The share itself."""
        return self.count / self.of


def rate(count: int, of: int) -> Rate:
    """`count` of `of` runs, with exact intervals.

    >>> found = rate(0, 59)
    >>> found.value, found.lower, round(found.upper, 4), found.bound < 0.05
    (0.0, 0.0, 0.0606, True)

    Raises:
        ValueError: there are no runs, or more counted than there are.
    """
    if not 0 <= count <= of or of == 0:
        raise ValueError(f"a rate needs runs, and at most as many counted: got {count} of {of}")
    from scipy.stats import binomtest

    two_sided = binomtest(count, of).proportion_ci(CONFIDENCE, "exact")
    one_sided = binomtest(count, of, alternative="less").proportion_ci(CONFIDENCE, "exact")
    return Rate(count, of, float(two_sided.low), float(two_sided.high), float(one_sided.high))


def poisson_interval(count: int, of: int) -> tuple[float, float]:
    """Exact interval of 95 %, two-sided, of how many there are a run, where `count` were seen in `of` runs.

    The ends are those means at which so many or more, and so many or fewer, have a chance of 2.5 %. Source: Garwood 1936.

    >>> [round(end, 3) for end in poisson_interval(0, 60)], [round(end, 2) for end in poisson_interval(5, 1)]
    ([0.0, 0.061], [1.62, 11.67])

    Raises:
        ValueError: there are no runs, or fewer than none counted.
    """
    if count < 0 or of <= 0:
        raise ValueError(f"a rate needs runs, and a count from 0 on: got {count} in {of}")
    from scipy.stats import chi2

    tail = (1 - CONFIDENCE) / 2
    low = chi2.ppf(tail, 2 * count) / 2 if count else 0.0
    return float(low) / of, float(chi2.ppf(1 - tail, 2 * count + 2)) / 2 / of


def floor(negatives: int) -> float:
    """The smallest rate that this many negative runs can be shown to be below, if none of them alarms.

    >>> round(floor(10), 3), round(floor(33), 3), floor(59) < 0.05 < floor(58)
    (0.259, 0.087, True)
    """
    return 1.0 if negatives == 0 else 1 - (1 - CONFIDENCE) ** (1 / negatives)


def allowed(negatives: int, claim: float) -> int:
    """How many of so many negative runs may alarm where a rate below `claim` is to be shown; 0 where it cannot be.

    >>> allowed(58, 0.05), allowed(92, 0.05), allowed(93, 0.05), allowed(60, 0.10)
    (0, 0, 1, 1)
    """
    count = 0
    while count + 1 < negatives and rate(count + 1, negatives).bound <= claim:
        count += 1
    return count
