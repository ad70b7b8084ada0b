"""Faults from real life, many of each kind, and what comes of them: `python benchmarks/faults.py [--kind KIND …]`.

A table of counts: survived, named, silent, traceback, lost (`faults_frame.Outcome`). The aim is 0 in the last three
columns; the exit code is 1 otherwise, and each such fault is listed with what is needed to do it again.
"""

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Annotated

import typer
from faults_damages import damages
from faults_frame import ALLOWED, Kind, Outcome, Trial, counted
from faults_inputs import inputs
from faults_kills import killed_causes, kills
from rich.console import Console
from rich.table import Table
from store_measure import scratch

from mech_pipeline.provenance import versions_json

KINDS: dict[str, Kind] = {
    "kills": Kind("a part of `mech run` is killed with signal 9", 100, kills),
    "causes": Kind("the same, of a programme whose arms choose by what was measured", 12, killed_causes),
    "damages": Kind("files of a store are damaged behind its back", 300, damages),
    "inputs": Kind(
        "text, cells, experiment files, tokenizers and checkpoints as nobody should write them", 500, inputs
    ),
}


def main(
    kind: Annotated[list[str] | None, typer.Option(help=f"any of {', '.join(KINDS)}; all by default")] = None,
    n: Annotated[int | None, typer.Option(help="faults of each kind; by default as many as each kind aims at")] = None,
    seed: Annotated[int, typer.Option(help="chooses the faults")] = 0,
    folder: Annotated[Path | None, typer.Option(help="where to work; by default where the system keeps them")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="also write the counts here")] = None,
) -> None:
    """Does faults, and counts what came of them."""
    console = Console()
    console = console if console.is_terminal else Console(width=160)
    if unknown := set(kind or ()) - set(KINDS):
        raise typer.BadParameter(f"there is no kind {sorted(unknown)[0]!r}; there are {', '.join(KINDS)}")

    def say(line: str) -> None:
        console.print(line, style="dim", markup=False, highlight=False)

    done: dict[str, list[Trial]] = {}
    for name in kind or KINDS:
        with scratch(folder, name) as at:
            count = KINDS[name].count if n is None else n
            done[name] = list(KINDS[name].trials(at, count, Random(f"{name} {seed}"), say))
        if json_file is not None:
            json_file.write_text(json.dumps(_record(done, seed), indent=1) + "\n")
    console.print(_table(done))
    bad = [(name, trial) for name, trials in done.items() for trial in trials if trial.outcome not in ALLOWED]
    for name, trial in bad:
        say(f"{trial.outcome}: {name}, {trial.fault}: {trial.detail}")
    if bad:
        raise typer.Exit(1)


def _record(done: dict[str, list[Trial]], seed: int) -> dict[str, object]:
    results = [
        {"kind": kind, "fault": fault, "trials": sum(counts.values()), **{name: counts[name] for name in Outcome}}
        for kind, trials in done.items()
        for fault, counts in counted(trials).items()
    ]
    bad = [asdict(trial) for trials in done.values() for trial in trials if trial.outcome not in ALLOWED]
    return {"made_with": json.loads(versions_json()), "seed": seed, "results": results, "bad": bad}


def _table(done: dict[str, list[Trial]]) -> Table:
    table = Table("kind", "fault", "n", *Outcome, title="Faults")
    for column in table.columns[2:]:
        column.justify = "right"
    for kind, trials in done.items():
        all_of_them = Counter(trial.outcome for trial in trials)
        for fault, counts in {**counted(trials), "all": all_of_them}.items():
            table.add_row(kind, fault, str(sum(counts.values())), *(str(counts[name]) for name in Outcome))
    return table


if __name__ == "__main__":
    typer.run(main)
