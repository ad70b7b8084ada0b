"""SQL that users write: one reading statement, its result as a frame, and what is wrong with it in one line."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import polars as pl

from mech_pipeline.errors import MechError
from mech_pipeline.store.files.interface import storage_sentence
from mech_pipeline.store.reading.columns import Shape, in_frames
from mech_pipeline.store.reading.connection import connect
from mech_pipeline.store.tables.all import TABLES
from mech_pipeline.store.tables.views import VIEWS


def query(
    root: Path | str,
    sql: str,
    *,
    at: datetime | None = None,
    versions: Mapping[str, int] | None = None,
    shape: Shape = in_frames,
) -> pl.DataFrame:
    """The result of one reading statement over all tables; those that it does not name are not opened.

    Args:
        shape: what becomes of types that polars does not have, and of all others.

    Raises:
        MechError: the SQL does not parse, names something unknown, would write, or what it reads is damaged.
    """
    named = None if at or versions else named_tables(sql)
    try:
        return _run(root, sql, shape, connect(root, named, at=at, versions=versions))
    except _UnknownName:
        if named is None:
            raise
    return _run(root, sql, shape, connect(root))  # which knows what the name is nearest to


class _UnknownName(MechError):
    """A table, view or function is not there, or not opened."""


def _run(root: Path | str, sql: str, shape: Shape, opened: duckdb.DuckDBPyConnection) -> pl.DataFrame:
    with opened as connection:
        try:
            _check_reading(connection, sql)
            return shape(connection.sql(sql))
        except duckdb.Error as error:
            if (sentence := storage_sentence(str(root), error)) is not None:
                raise sentence from error
            kind = _UnknownName if isinstance(error, duckdb.CatalogException) else MechError
            raise kind(" ".join(str(error).split()), _hint(error)) from error


_CATALOG = re.compile(r"snapshot|show|information_schema|duckdb_\w+|pg_\w+|sqlite_\w+")
"""Words with which SQL asks about tables in general."""


def named_tables(sql: str) -> list[str] | None:
    """The tables that a statement may read, itself or through views; none: all of them.

    A word of it that is a table's name counts wherever it stands: in quotes, as a column, in `query_table('runs')`.

    >>> named_tables("select * from Runs join curves using (run)"), named_tables("select * from snapshot")
    (['mechanism_values', 'runs'], None)
    """
    words = set(re.findall(r"\w+", sql.lower()))
    if any(map(_CATALOG.fullmatch, words)):
        return None
    read = {name for view in VIEWS.values() if view.name in words for name in view.reads}
    return sorted(words & set(TABLES) | read)


def _hint(error: duckdb.Error) -> str:
    if isinstance(error, duckdb.ParserException):
        return 'a column with the name of an SQL keyword goes in double quotes, for example "offset"'
    return "`mech tables` lists tables and columns"


def _check_reading(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Only one SELECT (or a description of one) passes.

    `explain analyze` runs what it explains, so the explained statement is looked at as well.
    """
    statements = connection.extract_statements(sql)
    if len(statements) == 1 and statements[0].type == duckdb.StatementType.EXPLAIN:
        words = sql.split(None, 2)
        rest = words[2] if words[1].lower() == "analyze" else sql.split(None, 1)[1]
        statements = connection.extract_statements(rest)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise MechError("the store's SQL is read-only: one SELECT at a time", "to keep a result, use --output FILE")


def parse_time(text: str) -> datetime:
    """An ISO time; without a zone it is local time.

    Raises:
        MechError: it is not one.
    """
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except ValueError as error:
        raise MechError(f"{text!r} is not a time", "write it like 2026-11-24T09:30 (local time) or …T09:30Z") from error
