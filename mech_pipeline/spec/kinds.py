"""What a value in an experiment must be for its field: neither a yes for a number, nor a quoted one, nor raw bytes.

pydantic turns `true` into 1, `"2"` into 2, `1` into yes and bytes into text without a word; a slip of the pen would be
another experiment. Numbers with an exponent and no point (`3e-3`) are text to YAML, and numbers to everybody else.
"""

import reprlib
import types
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

_LARGEST = 2**63 - 1
"""Whole numbers of tables and tensors have 64 bits."""
_PLAIN = (bool, int, float, str)


def check_kind(value: Any, annotation: Any) -> None:
    """Refuses a value, or an item of one, that is of no kind which the annotation names.

    Raises:
        ValueError: with what it is and what it should be.
    """
    allowed = _kinds(annotation)
    if allowed is not None:
        _check(value, allowed)


def _check(value: Any, allowed: frozenset[type]) -> None:
    if isinstance(value, list | tuple):
        for item in value:
            _check(item, allowed)
    elif isinstance(value, dict):
        for item in value.values():
            _check(item, allowed)
    elif isinstance(value, bool):
        if bool not in allowed:
            raise ValueError(f"{str(value).lower()} is yes or no, and {_named(allowed)} is expected")
    elif isinstance(value, int | float):
        if not allowed & {int, float}:
            raise ValueError(f"{value} is a number, and {_named(allowed)} is expected")
        if isinstance(value, int) and abs(value) > _LARGEST:
            raise ValueError(f"a number of {len(str(value))} digits is too large")
    elif isinstance(value, str):
        if not allowed & {str, float}:
            raise ValueError(
                f"{reprlib.repr(value)} is text, and {_named(allowed)} is expected; write it without quotes"
            )
    elif isinstance(value, bytes | bytearray | set | frozenset):
        raise ValueError(f"it is a {type(value).__name__}, and {_named(allowed)} is expected")


def _named(allowed: frozenset[type]) -> str:
    words = {bool: "true or false", int: "a number", float: "a number", str: "text"}
    return " or ".join(dict.fromkeys(words[kind] for kind in _PLAIN if kind in allowed)) or "a mapping"


def _kinds(annotation: Any) -> frozenset[type] | None:
    """Plain types inside an annotation; none where anything goes, or another stage looks for itself."""
    if annotation is Any or (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return None
    if get_origin(annotation) is Literal:
        return frozenset(type(value) for value in get_args(annotation))
    found: set[type] = {annotation} & set(_PLAIN)
    for inner in _inside(annotation):
        kinds = _kinds(inner)
        if kinds is None:
            return None
        found |= kinds
    return frozenset(found)


def _inside(annotation: Any) -> tuple[Any, ...]:
    arguments = get_args(annotation)
    if hasattr(annotation, "__metadata__"):  # Annotated: what follows the type is no type
        return arguments[:1]
    if get_origin(annotation) is dict:
        return arguments[1:]
    return tuple(each for each in arguments if each is not Ellipsis and each is not types.NoneType)
