"""Reading: a DuckDB connection whose views list the exact files of one consistent cut through all tables.

Files are never replaced in place, so a query cannot see half of a write; a folder of Delta files must never be
globbed, because it also holds files that are no longer live. The connection is closed to everything else: it may open
those files and no others, write no file, load no extension, and its settings are locked.
"""

import os
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from tempfile import gettempdir

import duckdb

from mech_pipeline.errors import MechError
from mech_pipeline.store.delta import DataFile, TableVersion, check_columns
from mech_pipeline.store.files.interface import Files, readable_storage_errors
from mech_pipeline.store.files.open import open_files
from mech_pipeline.store.layout import check_readable
from mech_pipeline.store.reading.snapshot import Snapshot, take_snapshot
from mech_pipeline.store.reading.verdict import READ, judged, overruled, with_verdict
from mech_pipeline.store.tables.all import SNAPSHOT, TABLES, Column, Table
from mech_pipeline.store.tables.views import VIEWS, View

_DUCKDB = {
    "string": "VARCHAR",
    "int32": "INTEGER",
    "int64": "BIGINT",
    "float32": "FLOAT",
    "float64": "DOUBLE",
    "bool": "BOOLEAN",
}


def connect(
    root: Path | str,
    tables: Iterable[str] | None = None,
    *,
    at: datetime | None = None,
    versions: Mapping[str, int] | None = None,
    external: bool = False,
) -> duckdb.DuckDBPyConnection:
    """An in-memory connection with one view per table (all by default) over one consistent cut, `snapshot`, and VIEWS.

    Read frames with `connection.sql("select …").pl()` (polars) or `.df()` (pandas). Views, tables and macros that you
    create live in memory and are gone with the connection; nothing can be written to the store.

    Args:
        root: folder, or `s3://bucket/prefix`.
        tables: to see; with `influence` or `reliability` also those that decide what they say of being reliable.
        at: read the store as it was then; possible until `mech maintain` removed the files.
        versions: Delta versions of single tables, for example `{"ledger": 12}`.
        external: also allow other files: to join your own CSV, or to `copy … to 'file.parquet'`.

    Raises:
        MechError: there is no such bucket, the store is of a newer version, an older version is no longer there, or
            something of these tables is not what was written.
    """
    files = open_files(root)
    with readable_storage_errors(files.root):
        check_readable(files)
        cut = take_snapshot(files, TABLES if tables is None else with_verdict(tables), at=at, versions=versions)
        if at is not None or versions:
            _check_files(files, cut)
        cut.check_files()
        if at is not None and not any(cut.tables.values()):
            raise MechError(
                f"the store held nothing at {at:%Y-%m-%dT%H:%M:%SZ}", "`mech history runs` tells since when"
            )
    return open_views(files, cut, external=external)


def open_views(
    files: Files, cut: Snapshot, *, external: bool = False, spill: str | None = None
) -> duckdb.DuckDBPyConnection:
    """A connection over a cut; see `connect`.

    Args:
        spill: folder for what does not fit in memory; none: a folder of the system's, made when it is needed.
    """
    connection = new_duckdb(spill)
    try:
        sizes = {files.sql_url(f.name): f.bytes for found in cut.tables.values() if found for f in found.files}
        with readable_storage_errors(files.root):
            files.make_readable(connection, sizes)
            create_views(connection, files, cut)
            for view in views_of(cut):
                connection.execute(f"create view {view.name} as {view.sql}")
            connection.execute(f"create view {SNAPSHOT} as {snapshot_sql(cut)}")
        if not external:
            connection.execute(f"set allowed_paths = [{', '.join(quoted(url) for url in sizes)}]")
            connection.execute("set enable_external_access = false")
            connection.execute("set lock_configuration = true")
    except BaseException:
        connection.close()
        raise
    return connection


def new_duckdb(spill: str | None = None) -> duckdb.DuckDBPyConnection:
    """An empty DuckDB in memory."""
    return duckdb.connect(config={"temp_directory": spill or f"{gettempdir()}/mech-duckdb-{os.getpid()}"})


def create_views(
    connection: duckdb.DuckDBPyConnection, files: Files, cut: Snapshot, *, temporary: bool = False
) -> None:
    """A view for each table of a cut, over its exact files; where it has them all, with the verdict of `verdict`.

    Args:
        temporary: views that only this connection sees and that end with it.
    """
    connection.execute("set enable_progress_bar = false")  # it would write into logs
    kind = "temporary view" if temporary else "view"
    rows = {name: view_sql(files, TABLES[name], found) for name, found in cut.tables.items()}
    for name, sql in rows.items():
        connection.execute(f'create {kind} "{name}" as {sql}')
    if has_verdict(cut):
        for name, sql in judged(overruled(connection), rows):
            connection.execute(f'create or replace {kind} "{name}" as {sql}')


def has_verdict(cut: Snapshot) -> bool:
    """Whether the cut holds influence, and what decides whether it may be trusted."""
    return set(READ) <= set(cut.tables) and cut.tables["influence"] is not None


def views_of(cut: Snapshot) -> list[View]:
    """The views whose tables are all in a cut."""
    return [view for view in VIEWS.values() if set(view.reads) <= set(cut.tables)]


def view_sql(files: Files, table: Table, found: TableVersion | None) -> str:
    """The SELECT behind a table's view."""
    if found is None or not found.files:
        typed = ", ".join(f'null::{_DUCKDB[c.type]} as "{c.name}"' for c in table.shown_columns)
        return f"select {typed} where false"
    check_columns(table, found.schema)
    groups: dict[frozenset[str], list[DataFile]] = {}
    for file in sorted(found.files, key=lambda file: (file.partition.get("run", ""), file.name)):
        lacking = frozenset(c.name for c in table.all_columns if c.nullable and file.lacks(c.name))
        groups.setdefault(lacking, []).append(file)
    return " union all ".join(_select(files, table, group, lacking) for lacking, group in groups.items())


def _select(files: Files, table: Table, group: list[DataFile], lacking: frozenset[str]) -> str:
    """Of files with the same columns; a column that was added after they were written is empty in them."""
    columns = ", ".join(
        [
            *(_read(c, lacking=c.name in lacking) for c in table.all_columns),
            *(f'{each.sql} as "{each.column.name}"' for each in table.derived),
        ]
    )
    listed = ", ".join(quoted(files.sql_url(file.name)) for file in group)
    hive = ", hive_partitioning=true, hive_types={run: VARCHAR}" if table.per_run else ""
    return f"select {columns} from read_parquet([{listed}]{hive})"


def _read(column: Column, *, lacking: bool) -> str:
    """One column of a view; in files that are older than the column it reads as its default."""
    if not lacking:
        return f'"{column.name}"'
    empty = "null" if column.default is None else quoted(column.default)
    return f'{empty}::{_DUCKDB[column.type]} as "{column.name}"'


def snapshot_sql(cut: Snapshot) -> str:
    """The SELECT behind the view `snapshot`: which version of each table is seen."""
    rows = [
        f"({quoted(name)}, {found.version}::bigint, to_timestamp({found.committed / 1000}), "
        f"{sum(f.rows for f in found.files)}::bigint, {len(found.files)}::bigint, {sum(f.bytes for f in found.files)}::bigint)"
        for name, found in cut.tables.items()
        if found is not None
    ]
    columns = '"table", version, committed, rows, files, bytes'
    if not rows:
        typed = "null::varchar, null::bigint, null::timestamptz, null::bigint, null::bigint, null::bigint"
        return f"select * from (select {typed}) t({columns}) where false"
    return f"select * from (values {', '.join(rows)}) t({columns})"


def _check_files(files: Files, cut: Snapshot) -> None:
    for name, found in cut.tables.items():
        for file in found.files if found else ():
            if files.info(file.name) is None:
                raise MechError(
                    f"version {found.version if found else -1} of table {name} can no longer be read: "
                    "`mech maintain` removed its files",
                    f"`mech history {name}` lists the versions that are left",
                )


def quoted(text: object) -> str:
    """A text as an SQL literal."""
    return "'" + str(text).replace("'", "''") + "'"
