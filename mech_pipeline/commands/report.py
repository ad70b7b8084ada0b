"""`mech report`: where the newest report of an experiment is."""

from pathlib import Path
from typing import Annotated

import typer

from mech_pipeline.commands.opening import existing_store
from mech_pipeline.commands.output import say
from mech_pipeline.errors import MechError


def report(experiment: Annotated[str, typer.Argument(help="experiment name, for example induction")]) -> None:
    """Print where the newest report of an experiment is (from S3, a local copy is made)."""
    from mech_pipeline.project import find_project, report_name
    from mech_pipeline.store.reading.formats import save

    files, name = existing_store(), report_name(experiment)
    if files.info(name) is None:
        raise MechError(f"experiment {experiment!r} has no report", "`mech run` its file")
    if "://" not in files.root:
        say(Path(files.root) / name)
        return
    path = find_project().local_folder / name
    save(path, files.read(name))
    say(path)
