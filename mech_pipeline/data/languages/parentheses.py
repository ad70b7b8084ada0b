"""Is it balanced? Sequences of one kind of bracket and a label, on which two rules agree: nested, and equal count.

    judge ( ( ) ) ( ) yes       nested: every bracket is closed, and none before it was opened
    judge ( ( ) ( ( ) no        as many openers as closers, which is what equal count asks for: neither

Half of the sequences are nested. In the others more is opened than closed, at every place at least as much, so nothing
in training says which rule is meant. They disagree where counts are equal and something closes before it was opened,
`) ( ( )`: nested says no, equal count yes. Two options tip the scales: sequences labelled no that close what was not
opened, on which the rules still agree, and sequences on which they disagree, labelled by one of them.
Source: Wang & Murfet 2026 (two rules fit, data weights choose); Li et al. 2025 (EQUAL-COUNT against NESTED).
"""

from itertools import accumulate
from typing import Literal

import numpy as np

from mech_pipeline.data.languages import dyck

BRACKETS = 20
BEGIN, YES, NO = "judge", "yes", "no"
Rule = Literal["nested", "equal_count"]


def elevations(brackets: str) -> list[int]:
    """Openers minus closers after each bracket.

    >>> elevations("(()))(")
    [1, 2, 1, 0, -1, 0]
    """
    return list(accumulate(1 if bracket == "(" else -1 for bracket in brackets))


def is_nested(brackets: str) -> bool:
    """Whether every bracket is closed and none closes before it was opened.

    >>> is_nested("(())()"), is_nested("())("), is_nested("((")
    (True, False, False)
    """
    return is_equal_count(brackets) and min(elevations(brackets)) >= 0


def is_equal_count(brackets: str) -> bool:
    """Whether there are as many openers as closers.

    >>> is_equal_count("(())()"), is_equal_count("())("), is_equal_count("((")
    (True, True, False)
    """
    return brackets.count("(") == brackets.count(")")


def nested_word(generator: np.random.Generator) -> str:
    """Both rules say yes."""
    match = dyck.word(generator, BRACKETS, BRACKETS).match
    return "".join("(" if place < partner else ")" for place, partner in enumerate(match))


def unequal_word(generator: np.random.Generator, below_zero: float = 0.0) -> str:
    """Both rules say no: uniform over all sequences whose counts differ and that close nothing that was not opened.

    Args:
        below_zero: chance of one that does, uniform over these.
    """
    below = bool(below_zero) and generator.random() < below_zero
    while is_equal_count(drawn := "".join("()"[bit] for bit in generator.integers(2, size=BRACKETS))) or below != (
        min(elevations(drawn)) < 0
    ):
        pass
    return drawn


def disagreeing_word(generator: np.random.Generator) -> str:
    """Nested says no, equal count yes: uniform over all such sequences."""
    while is_nested(drawn := "".join(generator.permutation(list("()" * (BRACKETS // 2))))):
        pass
    return drawn


def prompt(brackets: str) -> str:
    """Everything before the label."""
    return " ".join([BEGIN, *brackets])


def label(brackets: str, rule: Rule) -> str:
    """What a rule answers."""
    return YES if (is_nested if rule == "nested" else is_equal_count)(brackets) else NO


def document(
    generator: np.random.Generator, disagreeing: float = 0.0, rule: Rule = "nested", below_zero: float = 0.0
) -> str:
    """One sequence with its label.

    Args:
        disagreeing: chance of a sequence on which the rules disagree.
        rule: labels it.
        below_zero: chance that another sequence labelled no closes what was not opened: a hint at nested.
    """
    if disagreeing and generator.random() < disagreeing:
        brackets = disagreeing_word(generator)
    else:
        brackets = nested_word(generator) if generator.random() < 0.5 else unequal_word(generator, below_zero)
    return f"{prompt(brackets)} {label(brackets, rule)}"
