"""Runs the parts of a benchmark one after another, and prints and writes what they found."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table
from store_measure import Result, Say, scratch

from mech_pipeline.provenance import versions_json

Measures = Mapping[str, Callable[[Path, Say], list[Result]]]


def report(
    title: str,
    known: Sequence[str],
    measures: Measures,
    parts: Sequence[str] | None,
    folder: Path | None,
    json_file: Path | None,
) -> None:
    """Exit code 1 if a target is missed.

    Raises:
        typer.BadParameter: a part that does not exist.
    """
    console = Console()
    if unknown := set(parts or ()) - set(known):
        raise typer.BadParameter(f"there is no part {sorted(unknown)[0]!r}; there are {', '.join(known)}")

    def say(line: str) -> None:
        console.print(line, style="dim", markup=False, highlight=False)

    results: list[Result] = []
    for part in parts or known:
        with scratch(folder, part) as at:
            results += measures[part](at, say)
        if json_file is not None:
            made = {"made_with": json.loads(versions_json()), "results": [_record(result) for result in results]}
            json_file.write_text(json.dumps(made, indent=1) + "\n")
    console.print(_table(title, results))
    if any(result.met is False for result in results):
        raise typer.Exit(1)


def _record(result: Result) -> dict[str, object]:
    measured = None if math.isnan(result.measured) else result.measured
    return {**asdict(result), "measured": measured, "met": result.met}


def _table(title: str, results: list[Result]) -> Table:
    table = Table("part", "what", "measured", "unit", "target", "met", "ratio", "to", title=title)
    for column in (2, 4, 6):
        table.columns[column].justify = "right"
    met = {None: "", True: "yes", False: "NO"}
    for number, result in enumerate(results):
        repeated = number > 0 and results[number - 1].part == result.part
        table.add_row(
            "" if repeated else result.part,
            result.what,
            _number(result.measured),
            result.unit,
            "" if result.target is None else f"≤ {_number(result.target)}",
            met[result.met],
            "" if result.ratio is None else f"{result.ratio:.2f}",
            result.baseline,
        )
    return table


def _number(value: float) -> str:
    if math.isnan(value):  # a row that only says why there is no number
        return "–"
    return f"{value:,.0f}" if value == int(value) or value >= 1000 else f"{value:.3g}"
