"""`warehouse.duckdb`: the views of one cut in a file, for the DuckDB command line, harlequin, and notebooks.

Views only, with absolute paths; swapped in whole, so it never blocks the pipeline and never shows half of a write.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb

from mech_pipeline.project import find_project
from mech_pipeline.store import checksums
from mech_pipeline.store.files.interface import Files, readable_storage_errors
from mech_pipeline.store.files.local import write_whole
from mech_pipeline.store.files.open import open_files
from mech_pipeline.store.layout import check_readable
from mech_pipeline.store.reading.connection import has_verdict, quoted, snapshot_sql, view_sql, views_of
from mech_pipeline.store.reading.snapshot import take_snapshot
from mech_pipeline.store.reading.verdict import judged, overruled
from mech_pipeline.store.tables.all import SNAPSHOT, SNAPSHOT_COLUMNS, SNAPSHOT_MEANING, TABLES, Table
from mech_pipeline.store.tables.views import View

FILE = "warehouse.duckdb"


def write_warehouse(root: Path | str, folder: Path | str | None = None) -> Path:
    """Writes the file into a local folder (by default where people's files of this store lie), and returns its path.

    Over S3 its views name `s3://` files: whoever opens it needs DuckDB's `httpfs` extension and credentials.
    """
    files = open_files(root)
    check_readable(files)
    if folder is None:
        folder = find_project().home / ".mech" if "://" in files.root else files.root
    target = Path(folder).absolute() / FILE
    target.parent.mkdir(parents=True, exist_ok=True)
    with readable_storage_errors(files.root), duckdb.connect() as connection, TemporaryDirectory() as made:
        _fill(connection, files, Path(made, FILE))  # DuckDB cannot make a database where `?` is in a folder's name
        write_whole(target, Path(made, FILE).read_bytes())
    if str(target.parent) == files.root:
        checksums.record(files, "warehouse", 0, {FILE: checksums.checksum(target.read_bytes())})
    return target


def _fill(connection: duckdb.DuckDBPyConnection, files: Files, path: Path) -> None:
    cut = take_snapshot(files, TABLES)
    cut.check_files()
    files.make_readable(
        connection, {files.sql_url(f.name): f.bytes for found in cut.tables.values() if found for f in found.files}
    )
    # v1.0.0 is the storage version that every DuckDB command line since 1.0 opens.
    connection.execute(f"attach {quoted(path)} as warehouse (storage_version 'v1.0.0')")
    rows = {name: view_sql(files, TABLES[name], found) for name, found in cut.tables.items()}
    for name, sql in rows.items():
        connection.execute(f'create view warehouse."{name}" as {sql}')
    if has_verdict(cut):
        for name, sql in judged(overruled(connection, "warehouse."), rows):
            connection.execute(f'create or replace view warehouse."{name}" as {sql}')
    for name, found in cut.tables.items():
        _comment(connection, TABLES[name], -1 if found is None else found.version)
    _combined(connection, views_of(cut))
    connection.execute(f"create view warehouse.{SNAPSHOT} as {snapshot_sql(cut)}")
    connection.execute(f"comment on view warehouse.{SNAPSHOT} is {quoted(f'{SNAPSHOT_MEANING}: {SNAPSHOT_COLUMNS}')}")
    connection.execute("detach warehouse")


def _combined(connection: duckdb.DuckDBPyConnection, views: list[View]) -> None:
    """Views over those of the tables, named as whoever opens the file sees them."""
    connection.execute("use warehouse")
    for view in views:
        connection.execute(f"create view {view.name} as {view.sql}")
        connection.execute(f"comment on view {view.name} is {quoted(view.meaning)}")
    connection.execute("use memory")


def _comment(connection: duckdb.DuckDBPyConnection, table: Table, version: int) -> None:
    meaning = quoted(f"{table.meaning} (Delta version {version})")
    connection.execute(f'comment on view warehouse."{table.name}" is {meaning}')
    for column in table.shown_columns:
        unit = f" [{column.unit}]" if column.unit else ""
        connection.execute(
            f'comment on column warehouse."{table.name}"."{column.name}" is {quoted(column.meaning + unit)}'
        )
