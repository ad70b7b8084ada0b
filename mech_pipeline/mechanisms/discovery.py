"""Finding mechanisms: modules of `mechanisms/library/`, and files in the project's folder `mechanisms/`.

A module defines MECHANISM, then named like its file, or MECHANISMS, a dictionary by name. Files whose names begin with _
are left alone. A project's file is compiled from the very bytes whose SHA-256 becomes part of its version, so an edit
recomputes exactly its mechanisms, and no stale bytecode is ever run.
"""

import ast
import hashlib
import importlib
import pkgutil
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from mech_pipeline.errors import MechError
from mech_pipeline.mechanisms import library
from mech_pipeline.mechanisms.mechanism import Mechanism
from mech_pipeline.spec.analysis import WEIGHTS
from mech_pipeline.spec.fingerprint import fingerprint

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_TAKEN = ("batch", WEIGHTS)
"""Names that the tables `gradients` and `ledger` give to the loss of a batch and to the weights themselves."""
_SINGLE, _SEVERAL = "MECHANISM", "MECHANISMS"

Found = dict[str, tuple[Mechanism[Any], str]]
"""Mechanisms by name, each with the place where it is defined."""


def discover(folder: Path | None) -> dict[str, Mechanism[Any]]:
    """The library's mechanisms and those of a folder.

    Raises:
        MechError: a file cannot be run, defines no mechanism, or one whose name is taken.
    """
    found: Found = {}
    for module in sorted(pkgutil.iter_modules(library.__path__), key=lambda module: module.name):
        _add(found, _from_library(module.name))
    for path in sorted(folder.glob("*.py")) if folder else ():
        if not path.name.startswith("_"):
            _add(found, _from_file(path))
    return {name: mechanism for name, (mechanism, _) in found.items()}


def _add(found: Found, more: Found) -> None:
    for name, (mechanism, place) in more.items():
        if name in found:
            raise MechError(f"{place}: mechanism {name!r} is defined in {found[name][1]} as well", "rename one of them")
        found[name] = mechanism, place


def _from_library(stem: str) -> Found:
    name = f"{library.__name__}.{stem}"
    return _declared(vars(importlib.import_module(name)), stem, lambda variable: name)


def _from_file(path: Path) -> Found:
    source = path.read_bytes()
    module = _executed(path, source)
    tree = ast.parse(source)
    declared = _declared(vars(module), path.stem, lambda variable: f"{path}, line {_line(tree, variable)}")
    digest = hashlib.sha256(source).hexdigest()
    return {
        name: (replace(mechanism, version=fingerprint(mechanism.version, digest)), place)
        for name, (mechanism, place) in declared.items()
    }


def _executed(path: Path, source: bytes) -> ModuleType:
    module = ModuleType(f"project_mechanisms.{path.stem}", f"Mechanisms of {path}.")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses look their module up
    try:
        exec(compile(source, str(path), "exec"), vars(module))
    except Exception as error:
        raise MechError(
            f"{path}, line {_faulty_line(error, path)}: {_in_words(error)}",
            "correct that line; the file must run when it is imported",
        ) from error
    return module


def _faulty_line(error: Exception, path: Path) -> int:
    """Where in a file something went wrong, deepest call first."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return error.lineno or 1
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return lines[-1] if lines and lines[-1] else 1


def _in_words(error: Exception) -> str:
    if isinstance(error, MechError):
        return error.problem
    said = error.msg if isinstance(error, SyntaxError) else " ".join(str(error).split())
    return f"{type(error).__name__}: {said}"


def _declared(namespace: Mapping[str, Any], stem: str, place: Callable[[str], str]) -> Found:
    """The mechanisms that a module defines.

    Args:
        place: where a variable of the module is set.
    """
    several = namespace.get(_SEVERAL, {})
    if not isinstance(several, dict):
        raise MechError(f"{place(_SEVERAL)}: {_SEVERAL} is a {type(several).__name__}", "make it a dictionary by name")
    named = {stem: (namespace[_SINGLE], place(_SINGLE))} if _SINGLE in namespace else {}
    named |= {name: (mechanism, place(_SEVERAL)) for name, mechanism in several.items()}
    if not named:
        raise MechError(
            f"{place(_SINGLE)}: the file defines no mechanism",
            f"set {_SINGLE} = Mechanism(...), or begin its name with _",
        )
    for name, (mechanism, where) in named.items():
        if not isinstance(mechanism, Mechanism):
            raise MechError(f"{where}: {name!r} is a {type(mechanism).__name__}", "make it a Mechanism(...)")
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name in _TAKEN:
            raise MechError(
                f"{where}: a mechanism cannot be named {name!r}",
                f"use letters, digits, - and _, and neither of {', '.join(_TAKEN)}",
            )
    return {name: (replace(mechanism, name=name), where) for name, (mechanism, where) in named.items()}


def _line(tree: ast.Module, variable: str) -> int:
    """Where a variable is set; 1 if it is not."""
    for statement in tree.body:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == variable for target in targets):
            return statement.lineno
    return 1
