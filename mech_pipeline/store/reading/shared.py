"""The pipeline's own questions to the store: as `connect`, without the price of a new DuckDB for each."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import duckdb

from mech_pipeline.store.files.interface import readable_storage_errors
from mech_pipeline.store.files.open import open_files
from mech_pipeline.store.layout import check_readable
from mech_pipeline.store.reading.connection import connect, create_views, new_duckdb
from mech_pipeline.store.reading.snapshot import take_snapshot


@contextmanager
def reading(root: Path | str, tables: Iterable[str]) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection with one view per table over one consistent cut, for SQL that the pipeline itself wrote.

    A new DuckDB takes 20 ms and most questions 2, so in a folder all of a process share one. It may open any file:
    what users write goes through `connect`. On S3, where a connection needs a client of its own, it is `connect`.

    Raises:
        MechError: there is no such bucket, or the store is of a newer version.
    """
    files = open_files(root)
    if files.local_path("") is None:
        with connect(root, tables) as connection:
            yield connection
        return
    with readable_storage_errors(files.root):
        check_readable(files)
        cut = take_snapshot(files, tables)

    def opened() -> "_Views":
        connection = _shared(os.getpid()).cursor()
        create_views(connection, files, cut, temporary=True)  # gone with the connection
        return _Views(connection, opened)

    with opened() as connection:
        yield connection


class _Views(duckdb.DuckDBPyConnection):
    """A connection whose cursors see its views too: DuckDB's own see none that are temporary.

    Only what stands here may be used of it; the rest of the class has nothing to work on.
    """

    def __new__(cls, *_: object) -> "_Views":
        return super().__new__(cls)

    def __init__(self, connection: duckdb.DuckDBPyConnection, again: Callable[[], "_Views"]) -> None:
        self._connection, self._again = connection, again

    def execute(self, *arguments: Any, **named: Any) -> duckdb.DuckDBPyConnection:
        return self._connection.execute(*arguments, **named)

    def sql(self, *arguments: Any, **named: Any) -> duckdb.DuckDBPyRelation:
        return self._connection.sql(*arguments, **named)

    def cursor(self) -> "_Views":
        return self._again()

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> "_Views":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@cache
def _shared(_process: int) -> duckdb.DuckDBPyConnection:
    """One of a process: the threads of another do not survive a fork."""
    connection = new_duckdb()
    connection.execute("set enable_external_file_cache = false")  # what is read is what lies on disk
    return connection
