"""Every signal by name: the modules of `signals/library/`, each of which defines SIGNAL and is named like it."""

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
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
