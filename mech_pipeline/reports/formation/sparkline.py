"""A run's curves as lines of text, which `mech run` shows as soon as they are known, long before there is a report."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence

import duckdb

from mech_pipeline.reports.formation.queries import formation_events, signal_curves
from mech_pipeline.reports.wording import number, signal_name, signal_unit

LEVELS = "▁▂▃▄▅▆▇█"
_WIDTH = 30


def sparkline(steps: Sequence[int], values: Sequence[float], width: int = _WIDTH) -> str:
    """A curve in one line, from the first step to the last in even pieces, from the lowest value to the highest.

    A piece shows the latest evaluation up to its end, so a denser grid of steps does not stretch a part of training.

    >>> sparkline([0, 1, 2, 3, 4], [0.0, 0.0, 0.0, 0.6, 1.0], width=4)
    '▁▁▅█'
    >>> sparkline([0, 10], [2.0, 2.0], width=4)
    '▁▁▁▁'
    """
    lowest, length = min(values), steps[-1] - steps[0]
    scale = (len(LEVELS) - 1) / ((max(values) - lowest) or 1.0)
    ends = [steps[0] + length * (piece + 1) / width for piece in range(width)]
    shown = [values[bisect_right(steps, end) - 1] for end in ends]
    return "".join(LEVELS[int((value - lowest) * scale + 0.5)] for value in shown)


def formation_lines(connection: duckdb.DuckDBPyConnection, run: str) -> Iterator[str]:
    """Of every event of a run: when it formed, and the curve.

    Args:
        connection: with views of `runs`, `mechanism_values`, `head_scores` and `formation`.
    """
    for event in formation_events(connection, [run]).iter_rows(named=True):
        curve = signal_curves(connection, [run], event["mechanism"])
        if curve.is_empty():
            continue
        steps, values = curve["step"].to_list(), curve["value"].to_list()
        formed = f"did not form by step {event['lower']}" if event["censored"] else f"formed at step {event['step']}"
        threshold = f"at least {number(event['threshold'])} {signal_unit(event['mechanism'])}"
        yield (
            f"{run}: {signal_name(event['mechanism'])} {formed} ({threshold})\n"
            f"  step {steps[0]} {sparkline(steps, values)} {steps[-1]}, {number(values[0])} to {number(values[-1])}"
        )
