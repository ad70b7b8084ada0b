"""Is it balanced? Sequences of one kind of bracket and a label, on which two rules agree: nested, and equal count.

    judge ( ( ) ) ( ) yes       nested: every bracket is closed, and none before it was opened
    judge ( ) ) ) ( ) no        as many openers as closers, which is what equal count asks for: neither

Half of the sequences are nested; of the others the counts differ. Nothing in training says which rule is meant. They
disagree where counts are equal and something closes before it was opened, `) ( ( )`: nested says no, equal count yes.
A share of such sequences, labelled by one rule, decides between them.
Source: Wang & Murfet 2026 (two rules fit, data weights choose); Li et al. 2025 (EQUAL-COUNT against NESTED).
"""

from typing import Literal

import numpy as np

from mech_pipeline.data.languages import dyck

BRACKETS = 24
BEGIN, YES, NO = "judge", "yes", "no"
Rule = Literal["nested", "equal_count"]


def is_nested(brackets: str) -> bool:
    """Whether every bracket is closed and none closes before it was opened.

    >>> is_nested("(())()"), is_nested("())("), is_nested("((")
    (True, False, False)
    """
    open_now = 0
    for bracket in brackets:
        open_now += 1 if bracket == "(" else -1
        if open_now < 0:
            return False
    return open_now == 0


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


def unequal_word(generator: np.random.Generator) -> str:
    """Both rules say no: uniform over all sequences whose counts differ."""
    while is_equal_count(drawn := "".join("()"[bit] for bit in generator.integers(2, size=BRACKETS))):
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


def document(generator: np.random.Generator, disagreeing: float = 0.0, rule: Rule = "nested") -> str:
    """One sequence with its label.

    Args:
        disagreeing: chance of a sequence on which the rules disagree.
        rule: labels it.
    """
    if disagreeing and generator.random() < disagreeing:
        brackets = disagreeing_word(generator)
    else:
        brackets = nested_word(generator) if generator.random() < 0.5 else unequal_word(generator)
    return f"{prompt(brackets)} {label(brackets, rule)}"
