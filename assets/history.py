"""Dagster's history: opened in one way, made by one process at a time, and in SQLite without a flush for every event.

Each event is two or three transactions, and waiting for the disk was most of an event's time. Dagster's databases are in WAL
mode: with `synchronous = normal` they are whole after a killed process and after a power cut, which may take the last
events with it. Nothing rests on those: what is current is asked of the store, which flushes its own files, and `training_run`
tells the UI again of checkpoints that it does not know.
"""

import fcntl
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.instance import InstanceRef
from sqlalchemy import Engine, event

from mech_pipeline.assets.databases import make_whole, placed, sqlite_folder
from mech_pipeline.assets.kept_connections import with_kept_connections
from mech_pipeline.errors import MechError
from mech_pipeline.system_errors import in_words

_FAULTS = (
    ("more than one head", "was made by two processes at once and is broken", "remove it and run again"),
    ("malformed", "is damaged", "remove it and run again"),
    ("not a database", "is damaged", "remove it and run again"),
    ("disk is full", "has no space left: the disk is full", "free space, and run it again"),
    ("readonly database", "cannot be written", "check its permissions"),
    ("unable to open database", "cannot be opened", "check its permissions"),
    ("database is locked", "is in use by another process for too long", "wait for it, and run again"),
    ("disk I/O error", "cannot be read or written: the disk reports an error", "check the disk"),
)
"""What SQLite and Alembic say, in words. Results are in the store: a history that is removed loses none of them."""


@contextmanager
def alone_in(home: Path) -> Iterator[None]:
    """Holds the lock of a project's history, for what only one process may do: create it, put its partitions in order.

    Two processes that create its databases at once break them for good. Whoever comes second waits.
    """
    folder = home / ".dagster"
    folder.mkdir(exist_ok=True)
    with (folder / "history.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def open_history(home: Path) -> Iterator[dg.DagsterInstance]:
    """The instance that a project's dagster.yaml describes, for a process of the launcher (`launcher/printed.py`).

    Raises:
        MechError: it cannot be opened.
    """
    try:
        reference = placed(home, InstanceRef.from_dir(str(home)))
        make_whole(home, reference)
        logs = reference.compute_logs_data
        if logs.class_name == "LocalComputeLogManager":
            ours = logs._replace(module_name="mech_pipeline.assets.launcher.printed", class_name="PrintedToFiles")
            reference = reference._replace(compute_logs_data=ours)
        instance = dg.DagsterInstance.from_ref(with_kept_connections(reference))
        instance.get_runs_count()  # creates what is not there yet, where it is not SQLite
    except MechError:
        raise
    except Exception as error:
        raise _readable(home, error) from error
    with instance:
        yield instance


def is_own(home: Path, instance: dg.DagsterInstance) -> bool:
    """Whether an instance is the history of a project on this machine, whose runs are processes of this machine."""
    if not instance.is_persistent:
        return False
    theirs, ours = instance.get_ref(), placed(home, InstanceRef.from_dir(str(home)))
    if theirs.run_launcher_data is not None and theirs.run_launcher_data.class_name != "DefaultRunLauncher":
        return False
    places = [_sqlite_folder(home, reference) for reference in (theirs, ours)]
    return places[0] is not None and places[0] == places[1]


def _sqlite_folder(home: Path, reference: InstanceRef) -> Path | None:
    """Where the runs of an instance are kept; none: not in SQLite."""
    folder = sqlite_folder(reference.run_storage_data)
    return None if folder is None else (home / folder).resolve()


def _readable(home: Path, error: Exception) -> Exception:
    history = home / ".dagster"
    for mark, problem, next_step in _FAULTS:
        if mark in str(error):
            return MechError(f"Dagster's history {history} {problem}", f"{next_step}: no result is in it")
    return in_words(error) or error


def spare_flushes() -> None:
    """For every SQLite connection that this process opens through SQLAlchemy from now on; others are left alone."""
    if not event.contains(Engine, "connect", _relax):
        event.listen(Engine, "connect", _relax)


def _relax(connection: Any, _record: object) -> None:
    if isinstance(connection, sqlite3.Connection):
        connection.execute("pragma synchronous = normal")
