"""Brackets of Python source, found by Python's own tokenizer: those in strings, f-strings and comments do not count.

    f(a, ")", [1])  →  ( 1 … ) 13,  [ 10 … ] 12
     ↑        ↑  ↑ in bytes of the UTF-8 text

Replacement fields of f-strings are strings here: before Python 3.12 the tokenizer does not look into them, and brackets
must not depend on the interpreter.
"""

import io
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass

OPENERS, CLOSERS = "([{", ")]}"
_INTO = {number for name in ("FSTRING_START", "TSTRING_START") if (number := getattr(tokenize, name, None)) is not None}
_OUT_OF = {number for name in ("FSTRING_END", "TSTRING_END") if (number := getattr(tokenize, name, None)) is not None}


@dataclass(frozen=True)
class Pair:
    """An opening bracket and the one that closes it.

    Attributes:
        kind: place in OPENERS and CLOSERS.
        opener, closer: where they are, in bytes of the UTF-8 text.
        depth: brackets that are open before the opener.
    """

    kind: int
    opener: int
    closer: int
    depth: int


def bracket_pairs(text: str) -> list[Pair]:
    """All pairs of a source file, in the order of their openers.

    >>> [(pair.kind, pair.opener, pair.closer, pair.depth) for pair in bracket_pairs('f(a, ")", [1])')]
    [(0, 1, 13, 0), (1, 10, 12, 1)]

    Raises:
        ValueError: the text is not Python source, or its brackets do not match.
    """
    stack: list[tuple[int, int]] = []
    found = []
    for bracket, place in _brackets(text):
        if bracket in OPENERS:
            stack.append((OPENERS.index(bracket), place))
            continue
        if not stack or stack[-1][0] != CLOSERS.index(bracket):
            raise ValueError(f"not Python source: nothing is open that the {bracket} at byte {place} closes")
        kind, opener = stack.pop()
        found.append(Pair(kind, opener, place, len(stack)))
    if stack:
        raise ValueError(f"not Python source: the {OPENERS[stack[-1][0]]} at byte {stack[-1][1]} is never closed")
    return sorted(found, key=lambda pair: pair.opener)


def _brackets(text: str) -> Iterator[tuple[str, int]]:
    """(bracket, byte) of each one that is code."""
    lines = text.splitlines(keepends=True) if "\r" not in text else io.StringIO(text, newline="").readlines()
    begins = [0]
    for line in lines:
        begins.append(begins[-1] + len(line.encode()))
    inside = 0
    try:
        for token in tokenize.generate_tokens(iter([*lines, ""]).__next__):
            inside += (token.type in _INTO) - (token.type in _OUT_OF)
            if token.type == tokenize.OP and token.string in (*OPENERS, *CLOSERS) and not inside:
                row, column = token.start
                yield token.string, begins[row - 1] + len(lines[row - 1][:column].encode())
    except (tokenize.TokenError, SyntaxError) as error:
        raise ValueError(f"not Python source: {error}") from error
