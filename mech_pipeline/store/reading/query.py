"""SQL that users write: one reading statement, its result as a frame, and what is wrong with it in one line."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import polars as pl

from mech_pipeline.errors import MechError
from mech_pipeline.store.files.interface import storage_sentence
from mech_pipeline.store.reading.columns import Shape, in_frames
from mech_pipeline.store.reading.connection import connect


def query(
    root: Path | str,
    sql: str,
    *,
    at: datetime | None = None,
    versions: Mapping[str, int] | None = None,
    shape: Shape = in_frames,
) -> pl.DataFrame:
    """The result of one reading statement over all tables.

    Args:
        shape: what becomes of types that polars does not have, and of all others.

    Raises:
        MechError: the SQL does not parse, names something unknown, would write, or the store cannot be read.
    """
    with connect(root, at=at, versions=versions) as connection:
        try:
            _check_reading(connection, sql)
            return shape(connection.sql(sql))
        except duckdb.Error as error:
            if (sentence := storage_sentence(str(root), error)) is not None:
                raise sentence from error
            raise MechError(" ".join(str(error).split()), _hint(error)) from error


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
