"""Brackets of several kinds, nested and balanced (Dyck words of bounded depth), a space before each, a full stop after all.

    open ( [ ] { ( ) } ) .

What may be closed next is the kind on top of the stack of open brackets, however long ago that was opened.
Source: Yao et al. 2021, §2 (Dyck-(k, D)).
"""

from dataclasses import dataclass

import numpy as np

OPENERS, CLOSERS = "([{<", ")]}>"
DEPTH = 6
BRACKETS = 40
BEGIN, END = "open", "."


@dataclass(frozen=True)
class Word:
    """A balanced sequence of brackets.

    Attributes:
        brackets: one character each.
        match: of each bracket, the place of its partner.
    """

    brackets: str
    match: tuple[int, ...]

    @property
    def text(self) -> str:
        """As it is trained on."""
        return " ".join([BEGIN, *self.brackets, END])


def word(generator: np.random.Generator, brackets: int = BRACKETS, depth: int = DEPTH) -> Word:
    """A random word: opens or closes with even chances where both are possible.

    Args:
        brackets: how many, an even number.
        depth: most brackets that are open at once.
    """
    made: list[str] = []
    match = [0] * brackets
    stack: list[int] = []
    for place in range(brackets):
        left = brackets - place
        opens = len(stack) < min(depth, left - 1) and (not stack or generator.random() < 0.5)
        if opens:
            made.append(OPENERS[generator.integers(len(OPENERS))])
            stack.append(place)
        else:
            partner = stack.pop()
            made.append(CLOSERS[OPENERS.index(made[partner])])
            match[place], match[partner] = partner, place
    return Word("".join(made), tuple(match))


def with_other_kinds(shape: Word, generator: np.random.Generator) -> Word:
    """The same nesting with the kind of every pair drawn anew."""
    made = list(shape.brackets)
    for place, partner in enumerate(shape.match):
        if place < partner:
            kind = generator.integers(len(OPENERS))
            made[place], made[partner] = OPENERS[kind], CLOSERS[kind]
    return Word("".join(made), shape.match)


def document(generator: np.random.Generator) -> str:
    """One word."""
    return word(generator).text
