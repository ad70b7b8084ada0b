"""Dagster's history in SQLite through connections that are kept open, for processes of the launcher.

Dagster opens an engine and a connection for each statement group and closes both after it: statements are compiled anew, and
closing the last connection of a database in WAL mode writes all of it back. A materialization took 24 ms of processor time so,
and takes 7; an event of a step 8, and 2. A kept connection between two transactions holds no lock, so readers and other writers
notice nothing. What a killed process had committed is in the log beside the database, which the next one reads.

Dagster also makes a database for each of its runs: ten tables, their indices and a stamp of Alembic, half a second on a busy
machine. Here the first of a process is made so, and the others are copies of it as it was when it was empty.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from dagster._core.instance import InstanceRef
from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME, SqliteEventLogStorage
from dagster._core.storage.runs import SqliteRunStorage
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster._serdes import ConfigurableClassData
from sqlalchemy import Connection, Engine, create_engine


class KeptSqliteStorage(DagsterSqliteStorage):
    """`DagsterSqliteStorage`, for a process that writes thousands of events."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(base_dir, inst_data)  # makes or checks the databases
        self._run_storage = _Runs(self._run_storage._conn_string)
        self._event_log_storage = _Events(self._event_log_storage._base_dir)

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Any) -> "KeptSqliteStorage":
        return cls.from_local(inst_data=inst_data, **config_value)


def with_kept_connections(reference: InstanceRef) -> InstanceRef:
    """The same instance; where it is in SQLite, through connections that are kept."""
    storage = reference.storage_data
    if storage is None or storage.class_name != "DagsterSqliteStorage":
        return reference
    ours = storage._replace(module_name=KeptSqliteStorage.__module__, class_name=KeptSqliteStorage.__name__)
    return reference._replace(storage_data=ours)


class _Runs(SqliteRunStorage):
    """The table of runs: one database."""

    def __init__(self, conn_string: str, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(conn_string, inst_data)
        self._engine = _engine(conn_string)

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        with self._engine.begin() as connection:
            yield connection

    def dispose(self) -> None:
        self._engine.dispose()


class _Events(SqliteEventLogStorage):
    """Events: a database for all, the index, and one for each Dagster run, of which the last is kept open."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._engines: dict[str, Engine] = {}
        self._empty = b""
        super().__init__(base_dir, inst_data)

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        with self._db_lock:
            if shard not in self._initialized_dbs:
                self._make(shard)
                self._initialized_dbs.add(shard)
            with self._engine_of(shard).begin() as connection:
                yield connection

    def _make(self, shard: str) -> None:
        """Makes a shard that is not there; checks one that is."""
        place = Path(self.path_for_shard(shard))
        is_new = not place.exists()
        if is_new and self._empty and _placed(self._empty, place):
            return
        self._initdb(self._engine_of(shard))
        if is_new and shard != INDEX_SHARD_NAME:
            self._empty = _bytes_of(place)

    def _engine_of(self, shard: str) -> Engine:
        if shard not in self._engines:
            for other in self._engines.keys() - {shard, INDEX_SHARD_NAME} if shard != INDEX_SHARD_NAME else ():
                self._engines.pop(other).dispose()
            self._engines[shard] = _engine(self.conn_string_for_shard(shard))
        return self._engines[shard]

    def dispose(self) -> None:
        super().dispose()
        for engine in self._engines.values():
            engine.dispose()


def _placed(content: bytes, place: Path) -> bool:
    """Puts a file where there is none, whole or not at all; False: another process was first, or the disk has no links."""
    aside = place.with_name(f"{place.stem}.{os.getpid()}.new")
    aside.write_bytes(content)
    try:
        os.link(aside, place)
    except OSError:
        return False
    finally:
        aside.unlink()
    return True


def _bytes_of(database: Path) -> bytes:
    """A database with what is in the log beside it."""
    with closing(sqlite3.connect(database)) as connection:
        return connection.serialize()


def _engine(conn_string: str) -> Engine:
    return create_engine(conn_string, pool_size=1, connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS})
