"""The pipeline's own questions to the store: as `connect`, without the price of a new DuckDB for each."""

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, cast

import duckdb

from mech_pipeline.store.files.interface import readable_storage_errors
from mech_pipeline.store.files.open import open_files
from mech_pipeline.store.layout import check_readable
from mech_pipeline.store.reading.connection import connect, create_views, new_duckdb
from mech_pipeline.store.reading.snapshot import take_snapshot


@contextmanager
def reading(
    root: Path | str, tables: Iterable[str], of: Collection[str] | None = None
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection with one view per table over one consistent cut, for SQL that the pipeline itself wrote.

    A new DuckDB takes 20 ms and most questions 2, so in a folder all of a process share one. It may open any file:
    what users write goes through `connect`. On S3, where a connection needs a client of its own, it is `connect`.

    Args:
        of: the question is about these runs alone, and may see no others (on S3 it does); none: about all. A view of
            thousands of files takes half a second to make, and until a run is compacted each of its checkpoints has some.

    Raises:
        MechError: there is no such bucket, the store is of a newer version, or something of these tables is not what was
            written.
    """
    files = open_files(root)
    if files.local_path("") is None:
        with connect(root, tables) as connection:
            yield connection
        return
    with readable_storage_errors(files.root):
        check_readable(files)
        whole = take_snapshot(files, tables)
        cut = whole if of is None else whole.of(set(of))
        cut.check_files()

    def opened() -> duckdb.DuckDBPyConnection:
        connection = _shared(os.getpid()).cursor()
        create_views(connection, files, cut, temporary=True)  # gone with the connection
        return cast(duckdb.DuckDBPyConnection, _Views(connection, opened))

    with opened() as connection:
        yield connection


class _Views:
    """A connection whose cursors see its views too: DuckDB's own see none that are temporary.

    It says that it is a connection, because DuckDB's class cannot be inherited from, and is one in all that it does.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, again: Callable[[], duckdb.DuckDBPyConnection]) -> None:
        self._connection, self._again = connection, again

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return duckdb.DuckDBPyConnection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def cursor(self) -> duckdb.DuckDBPyConnection:
        return self._again()

    def __enter__(self) -> "_Views":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()


@cache
def _shared(_process: int) -> duckdb.DuckDBPyConnection:
    """One of a process: the threads of another do not survive a fork."""
    connection = new_duckdb()
    connection.execute("set enable_external_file_cache = false")  # what is read is what lies on disk
    return connection
