"""Ratios of CPU time between acts that take turns: busy neighbours and a changing clock count less that way."""

import time
from collections.abc import Callable
from statistics import median
from typing import Any


def cpu_seconds(act: Callable[[], Any]) -> float:
    """Time that this process computed."""
    began = time.process_time()
    act()
    return time.process_time() - began


def in_turns(acts: dict[str, Callable[[], Any]], turns: int) -> dict[str, list[float]]:
    """CPU seconds of each act, turn after turn; the first turn warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in acts}
    for turn in range(turns + 1):
        for name, act in acts.items():
            taken = cpu_seconds(act)
            if turn:
                seconds[name].append(taken)
    return seconds


def ratios(acts: dict[str, Callable[[], Any]], turns: int) -> dict[str, float]:
    """Median over turns of each act's time relative to the first act's in the same turn."""
    seconds = in_turns(acts, turns)
    first = next(iter(seconds.values()))
    return {name: median(a / b for a, b in zip(taken, first, strict=True)) for name, taken in seconds.items()}
