"""`mech init`: a project folder of one's own, outside of the program's source."""

from pathlib import Path
from typing import Annotated

import typer

from mech_pipeline.commands.output import say
from mech_pipeline.errors import MechError

_PROJECT = Path(__file__).parent / "project"
_FILES = {"dagster.yaml": "dagster.yaml", "induction.yaml": "experiments/induction.yaml"}
"""Files that come with the program, and where they go."""
_IGNORED = "store/\n.dagster/\n.mech/\n"


def init(folder: Annotated[Path, typer.Argument(help="the project's folder; made if need be")]) -> None:
    """Make a project folder: settings, an experiment to change, a place for your own mechanisms.

    Nothing that is there is written over.
    """
    home = folder.absolute()
    contents = {target: (_PROJECT / name).read_text(encoding="utf-8") for name, target in _FILES.items()}
    contents[".gitignore"] = _IGNORED
    if there := [target for target in contents if (home / target).exists()]:
        raise MechError(f"{home} is a project already: it has {', '.join(there)}", "name another folder")
    for target, content in contents.items():
        (home / target).parent.mkdir(parents=True, exist_ok=True)
        (home / target).write_text(content, encoding="utf-8")
    (home / "mechanisms").mkdir(exist_ok=True)
    say(f"{home}: dagster.yaml, experiments/induction.yaml, mechanisms/ (yours go there)")
    say(f"next: cd {folder}, then mech plan experiments/induction.yaml, then mech run experiments/induction.yaml")
