"""Sums of two numbers of two digits, units first, a space before each sign.

    add 7 5 + 6 8 = 3 4 1 .          57 + 86 = 143

A digit of the result depends on two digits that stand at fixed distances before it, and on whether the
digits before them carried: a lookup, an addition of two digits, and one of three. Of numbers below
50 no digit of tens wraps around, so that each of the digits that are added says something about it, and small models come to know
it sooner. Source: the carry task of POLCA (2025).
"""

import numpy as np

BEGIN = "add"


def document(generator: np.random.Generator, below: int = 100, together: int = 1) -> str:
    """Sums as a text.

    Args:
        below: which both numbers are, at most 100.
        together: how many sums, one after another.
    """
    return " ".join(_sum(generator, below) for _ in range(together))


def _sum(generator: np.random.Generator, below: int) -> str:
    first, second = (int(number) for number in generator.integers(0, below, 2))
    return " ".join([BEGIN, *_digits(first, 2), "+", *_digits(second, 2), "=", *_digits(first + second, 3), "."])


def _digits(number: int, count: int) -> list[str]:
    """Units first.

    >>> _digits(143, 3)
    ['3', '4', '1']
    """
    return [str(number // 10**place % 10) for place in range(count)]
