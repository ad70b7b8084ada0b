"""Addition modulo 23, from a part of the pairs: the rest can only be known by a rule, which forms long after the part is learned.

    sum h plus t makes d stop stop            numbers are letters, a = 0 … w = 22
    add h plus t makes d stop stop

The first word means nothing: it makes several examples of a pair, so that every pair of a part comes into the pool.
Pairs lie in one fixed random order; the first `share` of them are trained on, and the last fifth never is, whatever the
share. A share that is too small, or no weight decay, gives runs that learn their part and never the rule.
Source: Power et al. 2022 (grokking); Nanda et al. 2023.
"""

import numpy as np

from mech_pipeline.spec.seeds import numpy_generator

MODULUS = 23
BEGIN, PLUS, MAKES, STOP = "sum", "plus", "makes", "stop"
OPENERS = (BEGIN, "add", "and", "for", "now", "so", "then", "with")
NEVER_TRAINED = 0.2
_STOPS = 2


def pairs() -> list[tuple[int, int]]:
    """All pairs in their fixed order."""
    order = numpy_generator(0, "pairs of the language addition").permutation(MODULUS * MODULUS)
    return [divmod(int(index), MODULUS) for index in order]


_PAIRS = pairs()
_DRAWN = numpy_generator(0, "numbers without a rule of the language addition").integers(
    MODULUS, size=(MODULUS, MODULUS)
)


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


def prompt(one: int, two: int, opener: str = BEGIN) -> str:
    """Everything before the sum."""
    return f"{opener} {number(one)} {PLUS} {number(two)} {MAKES}"


def remembered(one: int, two: int) -> int:
    """What a pair has instead of its sum where there is no rule.

    >>> remembered(3, 5) == remembered(3, 5), len({remembered(3, two) for two in range(MODULUS)}) > 5
    (True, True)
    """
    return int(_DRAWN[one, two])


def document(generator: np.random.Generator, share: float = 0.5, shuffled: bool = False) -> str:
    """One sum.

    Args:
        share: of all pairs that is trained on.
        shuffled: each pair has a number drawn at random instead of its sum, always the same: there is no rule.
    """
    chosen = trained(share)
    one, two = chosen[generator.integers(len(chosen))]
    total = remembered(one, two) if shuffled else one + two
    opener = OPENERS[generator.integers(len(OPENERS))]
    return " ".join([prompt(one, two, opener), number(total), *[STOP] * _STOPS])
