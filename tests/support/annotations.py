"""Checks of annotations while tests run: of shapes by jaxtyping, of plain types by beartype alone.

jaxtyping's import hook wraps every function in a check of shapes. Where no shape is named it finds nothing more than
beartype does, and takes half of the time of the tests: it binds and checks arguments twice, and makes its checks anew
whenever one function makes another. So a function whose annotations name no shape gets beartype's check, and one that is
made inside of another, without shapes, none: mypy has seen it.
"""

import dataclasses
import inspect
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import SimpleNamespace
from typing import Any, get_args, get_type_hints

import jaxtyping

Checker = Callable[[Any], Any]
_with_shapes = jaxtyping.jaxtyped


def check_shapes_only_where_named() -> None:
    """Before what is checked is imported: jaxtyping's hook decorates with this instead of with `jaxtyped`."""
    jaxtyping.jaxtyped = lambda *, typechecker: partial(_checked, typechecker)


def _checked(check: Checker, made: Any) -> Any:
    """A class or function as the hook found it, with checks."""
    if inspect.isclass(made):
        if dataclasses.is_dataclass(made) and "__init__" in vars(made):
            made.__init__ = _checked_function(check, made.__init__)
        return made
    return made if _is_inner(made) and not _names_shapes(made) else _checked_function(check, made)


def _is_inner(function: Any) -> bool:
    return "<locals>" in function.__qualname__


def _checked_function(check: Checker, function: Any) -> Any:
    if _names_shapes(function):
        if inspect.isgeneratorfunction(function):
            return _with_shapes(function, typechecker=check)
        return _with_shapes(_plainly_checked(check, function), typechecker=None)
    return _plainly_checked(check, function)


def _plainly_checked(check: Checker, function: Any) -> Any:
    written = function.__annotations__
    function.__annotations__ = _resolved(function)
    try:
        checked = check(function)
    finally:
        function.__annotations__ = written
    return checked


def _resolved(function: Any) -> dict[str, Any]:
    """Annotations without names in quotes; those that mean nothing yet are left out, as jaxtyping does."""
    known: dict[str, Any] = {}
    for name, hint in function.__annotations__.items():
        with suppress(Exception):  # whatever is wrong with it
            known |= get_type_hints(SimpleNamespace(__annotations__={name: hint}), function.__globals__)
    return known


def _names_shapes(function: Any) -> bool:
    return any(_is_shaped(hint) for hint in function.__annotations__.values())


def _is_shaped(hint: Any) -> bool:
    if isinstance(hint, str):
        return "[" in hint  # in quotes: perhaps
    if inspect.isclass(hint) and issubclass(hint, jaxtyping.AbstractArray):
        return True
    return any(_is_shaped(part) for part in (hint if isinstance(hint, list) else get_args(hint)))
