"""Every signal by name: the modules of `signals/library/`, each of which defines SIGNAL and is named like it."""

import ast
import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from mech_pipeline.signals import library

if TYPE_CHECKING:
    from mech_pipeline.signals.signal import Signal


@cache
def signals() -> "Mapping[str, Signal]":
    """All of them. Loading them imports PyTorch; for the names alone there is `signal_names`."""
    return {
        name: replace(importlib.import_module(f"{library.__name__}.{name}").SIGNAL, name=name)
        for name in signal_names()
    }


@cache
def signal_names() -> tuple[str, ...]:
    """Their names, without loading them."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(library.__path__)))


@cache
def signal_versions() -> Mapping[str, str]:
    """Their versions, read in their files without loading them."""
    return {name: _version(Path(folder, f"{name}.py")) for folder in library.__path__ for name in signal_names()}


def _version(file: Path) -> str:
    """The `version` that a file gives its signal; without one, that of every new signal."""
    calls = [node for node in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(node, ast.Call)]
    given = [word.value for call in calls for word in call.keywords if word.arg == "version"]
    return str(ast.literal_eval(given[0])) if given else "1"
