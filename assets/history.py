"""Dagster's history in SQLite, without a flush to the disk for every event.

Each event is two or three transactions, and waiting for the disk was most of an event's time. Dagster's databases are in WAL
mode: with `synchronous = normal` they are whole after a killed process and after a power cut, which may take the last
events with it. Nothing rests on those: what is current is asked of the store, which flushes its own files, and `training_run`
tells the UI again of checkpoints that it does not know.
"""

import sqlite3
from typing import Any

from sqlalchemy import Engine, event


def spare_flushes() -> None:
    """For every SQLite connection that this process opens through SQLAlchemy from now on; others are left alone."""
    if not event.contains(Engine, "connect", _relax):
        event.listen(Engine, "connect", _relax)


def _relax(connection: Any, _record: object) -> None:
    if isinstance(connection, sqlite3.Connection):
        connection.execute("pragma synchronous = normal")
