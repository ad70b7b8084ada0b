"""`mech report`: where the newest report of an experiment is."""

from pathlib import Path, PurePosixPath
from typing import Annotated

import typer

from mech_pipeline.commands import completing
from mech_pipeline.commands.opening import existing_store
from mech_pipeline.commands.output import note, say
from mech_pipeline.errors import MechError, did_you_mean


def report(
    experiment: Annotated[
        str, typer.Argument(help="experiment name, for example induction", autocompletion=completing.experiments)
    ],
    open_it: Annotated[bool, typer.Option("--open", help="show it in the web browser")] = False,
    figures: Annotated[
        Path | None, typer.Option(help="write its figures there as SVG and PDF, from what the store holds now")
    ] = None,
) -> None:
    """Print where the newest report of an experiment is (from S3, a local copy is made)."""
    if figures is not None:
        _save_figures(experiment, figures)
        return
    path = _local(experiment)
    say(path)
    if not open_it:
        return
    import webbrowser

    if not webbrowser.open(path.as_uri()):
        note("no web browser was found here; open that file where there is one, or set BROWSER")


def _save_figures(name: str, folder: Path) -> None:
    """Draws the figures of an experiment of the project's folder `experiments/`."""
    from mech_pipeline.mechanisms.chosen import CHOSEN
    from mech_pipeline.project import find_project
    from mech_pipeline.reports.paper import save_figures
    from mech_pipeline.resolve import read_experiment
    from mech_pipeline.spec.experiment_files import file_of
    from mech_pipeline.store.reading import connect

    root, project = existing_store().root, find_project()
    CHOSEN.use(project.mechanisms)
    file = file_of(name, project.home / "experiments")
    with connect(root) as connection:
        written = save_figures(connection, read_experiment(file, project.home, project.store), folder.absolute())
    for path in written:
        say(path)
    if not written:
        note(f"the store has nothing of {name} that could be drawn")


def _local(experiment: str) -> Path:
    """The report as a file of this machine.

    Raises:
        MechError: there is none.
    """
    from mech_pipeline.project import explore_name, find_project, report_name
    from mech_pipeline.store.reading.formats import save

    files, name = existing_store(), report_name(experiment)
    if files.info(name) is None:
        there = [PurePosixPath(entry.name) for entry in files.entries("reports")]
        known = [path.stem for path in there if path.suffixes == [".html"] and path.stem != "index"]
        raise MechError(
            f"experiment {experiment!r} has no report", f"{did_you_mean(experiment, known)}`mech run` its file"
        )
    if "://" not in files.root:
        return Path(files.root) / name
    path = find_project().local_folder / name
    save(path, files.read(name))
    if files.info(explored := explore_name(experiment)) is not None:  # which the report leads to
        save(find_project().local_folder / explored, files.read(explored))
    return path
