"""The pipeline's own questions to the store: as `connect`, without the price of a new DuckDB for each."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

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
    what users write goes through `connect`. Its views are its own: a cursor of it, as the queries of reports make, sees none.
    On S3, where a connection needs a client of its own, it is `connect`.

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
    with _shared(os.getpid()).cursor() as connection:
        create_views(connection, files, cut, temporary=True)  # gone with the cursor
        yield connection


@cache
def _shared(_process: int) -> duckdb.DuckDBPyConnection:
    """One of a process: the threads of another do not survive a fork."""
    connection = new_duckdb()
    connection.execute("set enable_external_file_cache = false")  # what is read is what lies on disk
    return connection
