"""Dagster's SQLite databases: where they lie, and how each is made whole or not at all."""

import json
import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.instance import InstanceRef
from dagster._serdes import ConfigurableClassData

from mech_pipeline.errors import MechError

_ASIDE = "making-"
_DATABASES = {
    "run_storage_data": ("runs.db", "runs"),
    "event_storage_data": ("index.db", "dynamic_partitions"),
    "schedule_storage_data": ("schedules.db", "job_ticks"),
}
"""Of each part of Dagster's storage in SQLite: its database, and a table that it has once it is made."""


def placed(home: Path, reference: InstanceRef) -> InstanceRef:
    """Relative folders in dagster.yaml are the project's, whichever folder a command is typed in."""
    changed: dict[str, Any] = {}
    for name, part in reference._asdict().items():
        if isinstance(part, ConfigurableClassData):
            settings = part.config_dict
            if isinstance(folder := settings.get("base_dir"), str) and not Path(folder).is_absolute():
                settings = {**settings, "base_dir": str(home / folder)}
                changed[name] = part._replace(config_yaml=json.dumps(settings))  # which is YAML
    return reference._replace(**changed)


def sqlite_folder(data: ConfigurableClassData | None) -> Path | None:
    """Where a part of Dagster's storage keeps its SQLite database; none: it is of another kind."""
    return Path(data.config_dict["base_dir"]) if data is not None and data.class_name.startswith("Sqlite") else None


def make_whole(home: Path, reference: InstanceRef) -> None:
    """Creates the databases that are missing, aside, and moves each to its place when it is whole.

    Dagster creates tables one by one, and takes a database that a killed process left half made for a whole one.

    Raises:
        MechError: one was left so by a process that did not create it in this way.
    """
    missing = list[tuple[str, Path]]()
    for part, (name, table) in _DATABASES.items():
        folder = sqlite_folder(getattr(reference, part))
        if folder is not None and not (folder / name).exists():
            missing.append((part, folder / name))
        elif folder is not None and not _has(folder / name, table):
            raise MechError(
                f"Dagster's history {folder / name} was not made to its end",
                "remove it and run again: no result is in it",
            )
    if not missing:
        return
    parent = home / ".dagster"
    parent.mkdir(exist_ok=True)
    for left in parent.glob(f"{_ASIDE}*"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=_ASIDE, dir=parent) as aside:
        made = placed(Path(aside), InstanceRef.from_dir(str(home)))
        with dg.DagsterInstance.from_ref(made) as instance:
            instance.get_runs_count()
            instance.get_dynamic_partitions("runs")
            instance.all_instigator_state()
        for part, place in missing:
            place.parent.mkdir(parents=True, exist_ok=True)
            folder = sqlite_folder(getattr(made, part))
            if folder is not None and folder != place.parent:  # an absolute one is where Dagster has made it
                (folder / place.name).rename(place)


def _has(database: Path, table: str) -> bool:
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=60)) as connection:
        return connection.execute("select 1 from sqlite_master where name = ?", [table]).fetchone() is not None
