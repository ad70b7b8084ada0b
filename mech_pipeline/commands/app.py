"""`mech`: run experiments, find reports; the commands about the store are in `commands/store.py`."""

import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table as RichTable
from rich.text import Text

from mech_pipeline.commands.store import existing_store, history, maintain, migrate, sql, tables, verify, warehouse
from mech_pipeline.errors import MechError

app = typer.Typer(
    help="Training process transparency: which training data made this mechanism, when, and how do we know?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.command()
def run(
    file: Annotated[Path, typer.Argument(help="experiment file, for example experiments/induction.yaml")],
    workers: Annotated[
        int, typer.Option(help="processes at a time; default: one per CPU core, at most one per run")
    ] = 0,
) -> None:
    """Compute whatever of an experiment is not current, then print what was found and where.

    Nothing is computed twice: run it again after a change, a crash or Ctrl-C, and only the rest is done.
    """
    began = time.monotonic()
    from mech_pipeline.assets.launcher.processes import warm_up
    from mech_pipeline.home import local_folder, project_home, store_root

    file = file.absolute()
    home, root = project_home(), store_root()
    os.chdir(home)
    if not Path(root, "reports").is_dir():
        warm_up()  # a first run surely has work for workers; a later one may not
    from mech_pipeline.spec.experiment import load_experiment

    experiment = load_experiment(file)
    from mech_pipeline.assets.launcher.launch import Launch
    from mech_pipeline.store.store import Store

    processes = workers or min(os.cpu_count() or 1, len(experiment.runs()))
    with _progress_lines() as emit:
        launch = Launch(experiment, file, home, Store(root), emit, processes)
        if launch.is_current():
            emit(f"{experiment.experiment}: nothing to recompute, everything is current")
        else:
            emit(f"{experiment.experiment}: {len(experiment.runs())} runs, {processes} processes, store {root}")
            try:
                launch.run()
            except KeyboardInterrupt:
                print("mech: stopped; what was finished is kept, run the same command to continue", file=sys.stderr)
                raise typer.Exit(130) from None
    from mech_pipeline.reports.summary import summary

    print(summary(root, experiment, local_folder(root)))
    print(f"\ndone in {time.monotonic() - began:.0f} s")


@app.command()
def status(
    file: Annotated[Path, typer.Argument(help="experiment file")],
) -> None:
    """Show what of an experiment is not current, without computing anything."""
    from mech_pipeline.home import project_home, store_root
    from mech_pipeline.spec.experiment import load_experiment

    file = file.absolute()
    experiment = load_experiment(file)
    home, root = project_home(), store_root()
    os.chdir(home)
    from mech_pipeline.assets.launcher.launch import Launch
    from mech_pipeline.store.store import Store

    launch = Launch(experiment, file, home, Store(root), lambda line: None, 1)
    table = RichTable("run", "ready and not current (cells)")
    for name, stages in launch.todo().items():
        table.add_row(name, ", ".join(f"{stage} ({count})" for stage, count in stages.items()) or "current")
    Console().print(table)


@app.command()
def report(experiment: Annotated[str, typer.Argument(help="experiment name, for example induction")]) -> None:
    """Print where the newest report of an experiment is (from S3, a local copy is made)."""
    from mech_pipeline.home import local_folder, report_name
    from mech_pipeline.store.reading.formats import save

    files, name = existing_store(), report_name(experiment)
    if files.info(name) is None:
        raise MechError(f"experiment {experiment!r} has no report", "`mech run` its file")
    path = local_folder(files.root) / name
    if "://" in files.root:
        save(path, files.read(name))
    print(path)


@app.command()
def zoom(
    run: Annotated[str, typer.Argument(help="run id, for example induction.baseline.s0")],
    window: Annotated[str, typer.Argument(help="FROM:TO, steps of the run, for example 860:880")],
    every: Annotated[int, typer.Option(help="updates between the states that are kept", min=1)] = 1,
) -> None:
    """Keep and analyse every state of a window of a trained run, replayed from the nearest checkpoint.

    The replay is compared with the next checkpoint of the run and kept only if it is the same bit for bit. A zoom
    changes no result: ledger, formation and report rest on the planned checkpoints.
    """
    from mech_pipeline.home import project_home
    from mech_pipeline.pipeline.grid import request_zoom
    from mech_pipeline.pipeline.run_row import stored_spec
    from mech_pipeline.store.store import Store

    store, home = Store(existing_store().root), project_home()
    first, last = _window(window)
    spec = stored_spec(store, run)
    os.chdir(home)
    steps = request_zoom(store, spec, first, last, every)
    from mech_pipeline.assets.launcher.zoom import zoom as keep_and_analyse

    with _progress_lines() as emit:
        try:
            keep_and_analyse(home, store.root, spec, (first, last, every), emit)
        except KeyboardInterrupt:
            print("mech: stopped; what was kept is kept, run the same command to continue", file=sys.stderr)
            raise typer.Exit(130) from None
    print(
        f'{len(steps)} states of {run} kept; look at them with\n  mech sql "select step, mechanism, value from '
        f"mechanism_values where run = '{run}' and step between {first} and {last} order by 2, 1\""
    )


def _window(text: str) -> tuple[int, int]:
    first, _, last = text.partition(":")
    if not (first.isdigit() and last.isdigit()):
        raise MechError(f"window {text!r} is not FROM:TO", "name two steps, for example 860:880")
    return int(first), int(last)


for command in (sql, tables, history, verify, maintain, migrate, warehouse):
    app.command()(command)


@contextmanager
def _progress_lines() -> Iterator[Callable[[str], None]]:
    """One live line per task in a terminal; plain lines elsewhere."""
    console = Console(stderr=False, highlight=False)
    if not console.is_terminal:
        yield lambda line: print(line, flush=True)
        return
    lines: dict[str, str] = {}
    with Live(console=console, refresh_per_second=4) as live:

        def emit(line: str) -> None:
            label, _, rest = line.partition(": ")
            if "took" in rest or (label not in lines and "/" not in rest):
                lines.pop(label, None)
                live.console.print(line, markup=False)
            else:
                lines[label] = line
            live.update(Text("\n".join(lines.values())))

        yield emit


def main() -> None:
    """Entry point: errors people can act on are one line on stderr and exit code 1."""
    warnings.filterwarnings("ignore", message=".*is currently in (beta|preview)")  # Dagster says so on every import
    try:
        app(standalone_mode=True)
    except MechError as error:
        print(f"mech: {error}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:
        sys.exit(1)


if __name__ == "__main__":
    main()
