"""The project: where `dagster.yaml`, `experiments/`, the store and a project's own mechanisms are.

A program finds its project once, where it begins, and passes it on; nothing else reads these variables. Code that is used
without a project (in a notebook, in a test) takes relative names from the current folder.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mech_pipeline.errors import MechError


@dataclass(frozen=True)
class Project:
    """Where things are.

    Attributes:
        home: folder of dagster.yaml; relative names in experiments begin there.
        store: root of the store, a folder or `s3://bucket/prefix`.
        mechanisms: folder of the project's own mechanisms; none: it has none.
    """

    home: Path
    store: str
    mechanisms: Path | None = None

    @property
    def local_folder(self) -> Path:
        """Where files that people open (reports, warehouse.duckdb) lie on this machine: in a local store, or `.mech/`."""
        return self.home / ".mech" if "://" in self.store else Path(self.store)


def find_project(environment: Mapping[str, str] = os.environ) -> Project:
    """The project that MECH_HOME, MECH_STORE and MECH_MECHANISMS name, or the one around the current folder.

    Raises:
        MechError: there is no dagster.yaml here or above and MECH_HOME is not set, or a variable names no folder.
    """
    home = _home(environment)
    if home is None:
        raise MechError(
            f"no dagster.yaml in {Path.cwd()} or above it", "run inside the project folder, or set MECH_HOME to it"
        )
    named = environment.get("MECH_STORE")
    return Project(home, _root(named) if named else str(home / "store"), _mechanisms(environment, home))


def find_store(environment: Mapping[str, str] = os.environ) -> str:
    """MECH_STORE, or the store of the project: asking a store that is named needs no project around it.

    Raises:
        MechError: neither is there.
    """
    named = environment.get("MECH_STORE")
    return _root(named) if named else find_project(environment).store


def find_mechanisms(environment: Mapping[str, str] = os.environ) -> Path | None:
    """The folder of mechanisms of the project around the current folder, for code that is used without a `Project`.

    Raises:
        MechError: MECH_MECHANISMS names no folder.
    """
    home = _home(environment)
    return _mechanisms(environment, home or Path.cwd()) if home or environment.get("MECH_MECHANISMS") else None


def report_name(experiment: str) -> str:
    """Where people find the newest report of an experiment, under the store's root."""
    return f"reports/{experiment}.html"


def explore_name(experiment: str) -> str:
    """Where the page to explore lies, beside the report."""
    return f"reports/{experiment}.explore.html"


REPORT_INDEX = report_name("index")
"""The page over all reports."""


def _home(environment: Mapping[str, str]) -> Path | None:
    """MECH_HOME, or the nearest folder upwards that holds a dagster.yaml."""
    if named := environment.get("MECH_HOME"):
        return Path(named).absolute()
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if (folder / "dagster.yaml").is_file()), None)


def _root(named: str) -> str:
    return named.rstrip("/") if "://" in named else str(Path(named).absolute())


def _mechanisms(environment: Mapping[str, str], home: Path) -> Path | None:
    """MECH_MECHANISMS (relative to the project folder), or `mechanisms/` there, if there is such a folder."""
    if named := environment.get("MECH_MECHANISMS"):
        folder = home / named
        if not folder.is_dir():
            raise MechError(f"MECH_MECHANISMS names {folder}, which is no folder", "name one, or unset it")
        return folder
    return home / "mechanisms" if (home / "mechanisms").is_dir() else None
