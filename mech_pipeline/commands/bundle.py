"""`mech export` and `mech import`: an experiment as a folder that others read without this package, and back."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mech_pipeline.commands import completing
from mech_pipeline.commands.opening import existing_store
from mech_pipeline.commands.output import say
from mech_pipeline.commands.progress import progress_lines
from mech_pipeline.errors import MechError
from mech_pipeline.stopping import promise

if TYPE_CHECKING:
    from mech_pipeline.spec.experiment import Experiment


def export(
    experiment: Annotated[
        str, typer.Argument(help="experiment name, for example induction", autocompletion=completing.experiments)
    ],
    folder: Annotated[Path, typer.Argument(help="to be made")],
    licence: Annotated[str | None, typer.Option(help="of the training text, for the data card")] = None,
    leave_out: Annotated[
        list[str] | None,
        typer.Option(
            help="a table that does not go along, for example sketches; may be repeated",
            autocompletion=completing.tables,
        ),
    ] = None,
    whole: Annotated[
        bool, typer.Option("--whole", help="write also the states of imported runs, which the store only names")
    ] = False,
) -> None:
    """Write an experiment as a bundle: rows as Parquet, states as safetensors, specs, report, figures, data card, checksums.

    Others read it with datasets, polars or DuckDB, without this package; `mech import` brings it back.
    """
    promise("stopped; nothing was written there")
    from mech_pipeline.exchange.bundle.export import Wish
    from mech_pipeline.exchange.bundle.export import export as write
    from mech_pipeline.store.store import Store

    store = Store(existing_store().root)
    wish = Wish(experiment, *_described(experiment), licence, tuple(leave_out or ()), whole, _home())
    with progress_lines() as emit:
        made = write(store, wish, folder.absolute(), emit)
    size = sum(file.bytes for file in made.files) / 1e6
    say(f"{folder}: {len(made.runs)} runs, {len(made.files)} files, {size:.1f} MB")
    for run in made.runs:
        if run.states:
            say(f"  {run.run}: {len(run.states)} states, last link of their chain {run.states[-1].chain[:16]}…")
    if made.elsewhere:
        say(f"states of {made.elsewhere} imported runs are not in it, only where they are: --whole writes them as well")
    say(f"licence of the training text: {made.licence}")


def _home() -> Path | None:
    """The project's folder, where there is one."""
    from mech_pipeline.project import find_project

    with suppress(MechError):
        return find_project().home
    return None


def _described(experiment: str) -> "tuple[Path | None, Experiment | None]":
    """The experiment's file and what it says, where there is one that can be read."""
    from mech_pipeline.mechanisms.chosen import CHOSEN
    from mech_pipeline.project import find_project
    from mech_pipeline.resolve import read_experiment
    from mech_pipeline.spec.experiment_files import file_of

    with suppress(MechError):
        project = find_project()
        CHOSEN.use(project.mechanisms)
        file = file_of(experiment, project.home / "experiments")
        return file, read_experiment(file, project.home, project.store)
    return None, None


def bring_in(
    folder: Annotated[Path, typer.Argument(help="a bundle that `mech export` wrote")],
    check: Annotated[bool, typer.Option("--check", help="only say whether it is whole")] = False,
) -> None:
    """Bring a bundle into the store: runs, states and everything that was measured, checked before anything is written.

    `mech run` of the same experiment then finds everything there.
    """
    promise("stopped; the same command goes on")
    from mech_pipeline.exchange.bundle.bring_back import bring_back, read_whole
    from mech_pipeline.project import find_store
    from mech_pipeline.store.store import Store

    with progress_lines() as emit:
        if check:
            read_whole(folder, emit)
            say(f"{folder}: whole")
            return
        found = bring_back(Store(find_store()), folder, emit)
    if found is None:
        say(f"{folder}: its runs are in the store already, nothing to do")
        return
    say(f"{len(found.runs)} runs of experiment {found.experiment} imported")
