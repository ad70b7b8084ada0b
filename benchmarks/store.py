"""What the store promises, measured: `python benchmarks/store.py [PART …]`, about ten minutes; see benchmarks/README.md.

Each number stands beside its target, if it has one, and beside the plain way of doing the same in the same run: seconds
depend on the machine, the ratio much less.
"""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from store_attribution import measure_influence, measure_ledger, shape_of, wide_shape
from store_damage import measure_flips
from store_kills import measure_kills
from store_latency import measure_latency
from store_measure import Result, scratch
from store_reading import measure_connect, measure_point_query
from store_writers import measure_writers

from mech_pipeline.provenance import versions_json

PARTS = ("writers", "kills", "influence", "wide", "ledger", "point", "connect", "flips", "latency")


def main(
    parts: Annotated[list[str] | None, typer.Argument(help=f"any of {', '.join(PARTS)}; all by default")] = None,
    rows: Annotated[int, typer.Option(help="rows of influence and of its wide shape")] = 10_000_000,
    run_rows: Annotated[int, typer.Option(help="rows of influence in one run")] = 10_000_000,
    ledger_rows: Annotated[int, typer.Option(help="rows of ledger")] = 3_000_000,
    writers: Annotated[int, typer.Option(help="processes that write at once")] = 8,
    replacements: Annotated[int, typer.Option(help="cells that each of them replaces")] = 200,
    kills: Annotated[int, typer.Option(help="writers to kill")] = 100,
    runs: Annotated[int, typer.Option(help="runs of the point query")] = 60,
    steps: Annotated[int, typer.Option(help="steps of each of these runs")] = 200,
    commits: Annotated[int, typer.Option(help="commits in the busiest tables, for connect and flips")] = 250,
    flips: Annotated[int, typer.Option(help="files to damage")] = 100,
    bulk_megabytes: Annotated[int, typer.Option(help="blobs of the store that is verified")] = 1000,
    log_length: Annotated[int, typer.Option(help="commits before latency is measured again")] = 1000,
    latency_commits: Annotated[int, typer.Option(help="commits timed at each length")] = 60,
    repetitions: Annotated[int, typer.Option(help="of each timed query; the median counts")] = 9,
    folder: Annotated[Path | None, typer.Option(help="where to work, with space for 6 bytes a row")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="also write the results here")] = None,
) -> None:
    """Measures the store."""
    console = Console()
    if unknown := set(parts or ()) - set(PARTS):
        raise typer.BadParameter(f"there is no part {sorted(unknown)[0]!r}; there are {', '.join(PARTS)}")

    def say(line: str) -> None:
        console.print(line, style="dim", markup=False, highlight=False)

    measures: dict[str, Callable[[Path], list[Result]]] = {
        "writers": lambda at: measure_writers(at, writers, replacements, say),
        "kills": lambda at: measure_kills(at, kills, say),
        "influence": lambda at: measure_influence(at, shape_of(rows, run_rows), repetitions, say),
        "wide": lambda at: measure_influence(at, wide_shape(min(rows, run_rows)), repetitions, say),
        "ledger": lambda at: measure_ledger(at, ledger_rows, say),
        "point": lambda at: measure_point_query(at, runs, steps, repetitions, say),
        "connect": lambda at: measure_connect(at, commits, repetitions, say),
        "flips": lambda at: measure_flips(at, flips, commits, bulk_megabytes * 1_000_000, say),
        "latency": lambda at: measure_latency(at, 1000, [0, log_length], latency_commits, say),
    }
    results: list[Result] = []
    for part in parts or PARTS:
        with scratch(folder, part) as at:
            results += measures[part](at)
        if json_file is not None:
            made = {"made_with": json.loads(versions_json()), "results": [_record(result) for result in results]}
            json_file.write_text(json.dumps(made, indent=1) + "\n")
    console.print(_table(results))
    if any(result.met is False for result in results):
        raise typer.Exit(1)


def _record(result: Result) -> dict[str, object]:
    return {**asdict(result), "met": result.met}


def _table(results: list[Result]) -> Table:
    table = Table("part", "what", "measured", "unit", "target", "met", "ratio", "to", title="Store")
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
    return f"{value:,.0f}" if value == int(value) or value >= 1000 else f"{value:.3g}"


if __name__ == "__main__":
    typer.run(main)
