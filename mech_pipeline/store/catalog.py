"""Reading: a DuckDB connection whose views list the exact files of one snapshot of every table.

Files are never replaced in place, so a query cannot see half of a write; a folder of Delta files must never be
globbed, because it also holds files that are no longer live. SQL is read-only: only statements that select are run.
"""

import os
import uuid
from collections.abc import Iterable
from pathlib import Path

import duckdb
from deltalake import DeltaTable

from mech_pipeline.errors import MechError
from mech_pipeline.store.tables import TABLES, Table

_READING = {duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN}
_DUCKDB = {
    "string": "VARCHAR",
    "int32": "INTEGER",
    "int64": "BIGINT",
    "float32": "FLOAT",
    "float64": "DOUBLE",
    "bool": "BOOLEAN",
}


def connect(root: Path | str, tables: Iterable[str] | None = None) -> duckdb.DuckDBPyConnection:
    """An in-memory connection with one view per table (all by default), over one consistent snapshot of each."""
    connection = duckdb.connect()
    for name in TABLES if tables is None else tables:
        connection.execute(f'create view "{name}" as {_view(Path(root), TABLES[name])[0]}')
    return connection


def query(root: Path | str, sql: str) -> duckdb.DuckDBPyConnection:
    """Runs one reading statement over all tables; the result is fetched from what is returned.

    Raises:
        MechError: the SQL does not parse, names something unknown, or would write.
    """
    connection = connect(root)
    try:
        statements = connection.extract_statements(sql)
        if len(statements) != 1 or statements[0].type not in _READING:
            raise MechError(
                "the store's SQL is read-only: one SELECT at a time", "to keep a result, use --format parquet"
            )
        return connection.execute(statements[0])
    except duckdb.Error as error:
        raise MechError(" ".join(str(error).split()), "`mech tables` lists tables and columns") from error


def write_warehouse(root: Path | str) -> Path:
    """Writes `warehouse.duckdb`: views only, absolute paths, swapped in whole. Opens in the DuckDB command line."""
    root = Path(root).absolute()
    target = root / "warehouse.duckdb"
    temporary = root / f".warehouse-{os.getpid()}-{uuid.uuid4().hex[:6]}.duckdb"
    connection = duckdb.connect()
    try:
        # v1.0.0 is the storage version that every DuckDB command line since 1.0 opens.
        connection.execute(f"attach '{_quoted(temporary)}' as warehouse (storage_version 'v1.0.0')")
        for name, table in TABLES.items():
            sql, version = _view(root, table)
            connection.execute(f'create view warehouse."{name}" as {sql}')
            connection.execute(
                f"comment on view warehouse.\"{name}\" is '{_quoted(table.meaning)} (Delta version {version})'"
            )
            for column in table.all_columns:
                unit = f" [{column.unit}]" if column.unit else ""
                comment = _quoted(column.meaning + unit)
                connection.execute(f'comment on column warehouse."{name}"."{column.name}" is \'{comment}\'')
        connection.execute("detach warehouse")
        temporary.replace(target)
    finally:
        connection.close()
        temporary.unlink(missing_ok=True)
    return target


def _view(root: Path, table: Table) -> tuple[str, int]:
    """The SELECT behind a table's view, and the Delta version it shows (-1: never written)."""
    path = root / "tables" / table.name
    files: list[str] = []
    version = -1
    if (path / "_delta_log").is_dir():
        snapshot = DeltaTable(str(path))
        files, version = snapshot.file_uris(), snapshot.version()
    columns = ", ".join(f'"{c.name}"' for c in table.all_columns)
    if not files:
        typed = ", ".join(f'null::{_DUCKDB[c.type]} as "{c.name}"' for c in table.all_columns)
        return f"select {typed} where false", version
    listed = ", ".join(f"'{_quoted(file)}'" for file in files)
    hive = ", hive_partitioning=true, hive_types={run: VARCHAR}" if table.per_run else ""
    return f"select {columns} from read_parquet([{listed}]{hive})", version


def _quoted(text: object) -> str:
    return str(text).replace("'", "''")
