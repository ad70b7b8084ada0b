"""What the store promises, measured: `python benchmarks/store.py [PART …]`, about ten minutes; see benchmarks/README.md.

Each number stands beside its target, if it has one, and beside the plain way of doing the same in the same run: seconds
depend on the machine, the ratio much less.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from reporting import report
from store_attribution import measure_influence, measure_ledger, shape_of, wide_shape
from store_checked import measure_checked
from store_damage import measure_flips
from store_kills import measure_kills
from store_latency import measure_latency
from store_measure import Result, Say
from store_reading import measure_connect, measure_point_query
from store_writers import measure_writers

PARTS = ("writers", "kills", "influence", "wide", "ledger", "point", "connect", "checked", "flips", "latency")


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
    root: Annotated[Path | None, typer.Option(help="for checked: ask this store instead of one made for it")] = None,
    folder: Annotated[Path | None, typer.Option(help="where to work, with space for 6 bytes a row")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="also write the results here")] = None,
) -> None:
    """Measures the store."""
    measures: dict[str, Callable[[Path, Say], list[Result]]] = {
        "writers": lambda at, say: measure_writers(at, writers, replacements, say),
        "kills": lambda at, say: measure_kills(at, kills, say),
        "influence": lambda at, say: measure_influence(at, shape_of(rows, run_rows), repetitions, say),
        "wide": lambda at, say: measure_influence(at, wide_shape(min(rows, run_rows)), repetitions, say),
        "ledger": lambda at, say: measure_ledger(at, ledger_rows, say),
        "point": lambda at, say: measure_point_query(at, runs, steps, repetitions, say),
        "connect": lambda at, say: measure_connect(at, commits, repetitions, say),
        "checked": lambda at, say: measure_checked(at, commits, repetitions, say, root),
        "flips": lambda at, say: measure_flips(at, flips, commits, bulk_megabytes * 1_000_000, say),
        "latency": lambda at, say: measure_latency(at, 1000, [0, log_length], latency_commits, say),
    }
    report("Store", PARTS, measures, parts, folder, json_file)


if __name__ == "__main__":
    typer.run(main)
