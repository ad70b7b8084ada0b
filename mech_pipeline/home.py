"""The project folder: where `dagster.yaml`, `experiments/` and, by default, the store lie."""

import os
from pathlib import Path

from mech_pipeline.errors import MechError


def project_home() -> Path:
    """MECH_HOME, or the nearest folder upwards that holds a dagster.yaml.

    Raises:
        MechError: there is none.
    """
    home = _home()
    if home is None:
        raise MechError(
            f"no dagster.yaml in {Path.cwd()} or above it", "run inside the project folder, or set MECH_HOME to it"
        )
    return home


def _home() -> Path | None:
    if named := os.environ.get("MECH_HOME"):
        return Path(named).absolute()
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if (folder / "dagster.yaml").is_file()), None)


def store_root() -> str:
    """MECH_STORE (a folder, or `s3://bucket/prefix`), or `store/` in the project folder."""
    named = os.environ.get("MECH_STORE")
    if named and "://" in named:
        return named.rstrip("/")
    return str(Path(named).absolute() if named else project_home() / "store")


def mechanisms_folder() -> Path | None:
    """MECH_MECHANISMS (relative to the project folder), or `mechanisms/` there; none if there is no such folder.

    Raises:
        MechError: MECH_MECHANISMS names no folder.
    """
    home = _home()
    if named := os.environ.get("MECH_MECHANISMS"):
        folder = (home or Path.cwd()) / named
        if not folder.is_dir():
            raise MechError(f"MECH_MECHANISMS names {folder}, which is no folder", "name one, or unset it")
        return folder
    return home / "mechanisms" if home is not None and (home / "mechanisms").is_dir() else None


def report_name(experiment: str) -> str:
    """Where people find the newest report of an experiment, under the store's root."""
    return f"reports/{experiment}.html"


def local_folder(root: str) -> Path:
    """Where files that people open (reports, warehouse.duckdb) lie on this machine: in a local store, or `.mech/`."""
    return project_home() / ".mech" if "://" in root else Path(root)
