"""Addition modulo 23, from a part of the pairs: the rest can only be known by a rule, which forms long after the part is learned.

    sum h plus t makes d stop stop            numbers are letters, a = 0 … w = 22

Pairs lie in one fixed random order; the first `share` of them are trained on, and the last fifth never is, whatever the
share. A share that is too small, or no weight decay, gives runs that learn their part and never the rule.
Source: Power et al. 2022 (grokking); Nanda et al. 2023.
"""

import numpy as np

from mech_pipeline.spec.seeds import numpy_generator

MODULUS = 23
BEGIN, PLUS, MAKES, STOP = "sum", "plus", "makes", "stop"
NEVER_TRAINED = 0.2
_STOPS = 2


def pairs() -> list[tuple[int, int]]:
    """All pairs in their fixed order."""
    order = numpy_generator(0, "pairs of the language addition").permutation(MODULUS * MODULUS)
    return [divmod(int(index), MODULUS) for index in order]


_PAIRS = pairs()


def trained(share: float) -> list[tuple[int, int]]:
    """The pairs that are trained on."""
    return _PAIRS[: round(share * len(_PAIRS))]


def never_trained() -> list[tuple[int, int]]:
    """The pairs that never are.

    >>> len(never_trained()), len(set(never_trained()) & set(trained(0.8)))
    (106, 0)
    """
    return _PAIRS[-round(NEVER_TRAINED * len(_PAIRS)) :]


def number(value: int) -> str:
    """A number as a letter, which is one token in every vocabulary.

    >>> number(0), number(24)
    ('a', 'b')
    """
    return chr(ord("a") + value % MODULUS)


def prompt(one: int, two: int) -> str:
    """Everything before the sum."""
    return f"{BEGIN} {number(one)} {PLUS} {number(two)} {MAKES}"


def document(generator: np.random.Generator, share: float = 0.5) -> str:
    """One sum."""
    chosen = trained(share)
    one, two = chosen[generator.integers(len(chosen))]
    return " ".join([prompt(one, two), number(one + two), *[STOP] * _STOPS])
