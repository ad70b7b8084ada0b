"""The answer to a query as a frame: how research code reads a DuckDB connection that somebody hands it."""

import duckdb
import polars as pl


def frame(connection: duckdb.DuckDBPyConnection, sql: str, **values: object) -> pl.DataFrame:
    """The result of a query whose `$name` parameters are given by name.

    On a cursor of its own: DuckDB 2 refuses a connection on which somebody's `fetchone` left a result open.
    """
    with connection.cursor() as cursor:
        return pl.DataFrame(cursor.sql(sql, params=values).to_arrow_table())
