"""Query results for people and programs: a table in the terminal, JSON, CSV, Parquet."""

import errno
import io
import os
from pathlib import Path

import polars as pl

from mech_pipeline.plain_text import PlainTable
from mech_pipeline.store.files.local import write_whole
from mech_pipeline.store.reading.columns import Shape, as_json, as_text, in_frames

_SHOWN_ROWS = 200


def shape_of(kind: str) -> Shape:
    """The form that a query's columns need for "table", "json", "csv" or "parquet"."""
    return {"json": as_json, "parquet": in_frames}.get(kind, as_text)


def as_table(frame: pl.DataFrame) -> PlainTable:
    """The first 200 rows of a frame of texts and numbers for a terminal; says how many there are in all."""
    caption = f"{frame.height} rows"
    if frame.height > _SHOWN_ROWS:
        caption = f"{_SHOWN_ROWS} of {frame.height} rows: --format csv shows all"
    table = PlainTable(caption=caption)
    for name, kind in frame.schema.items():
        table.add_column(name, justify="right" if kind.is_numeric() else "left", no_wrap=kind.is_numeric())
    for row in frame.head(_SHOWN_ROWS).iter_rows():
        table.add_row(*(_cell(value) for value in row))
    return table


def as_bytes(frame: pl.DataFrame, kind: str) -> bytes:
    """The whole result as "json" (an array of objects), "csv" or "parquet", from a frame in that kind's shape."""
    buffer = io.BytesIO()
    if kind == "json":
        buffer.write(b"[" + b",\n".join(row.encode() for row in frame["row"]) + b"]\n")
    elif kind == "csv":
        frame.write_csv(buffer)
    else:
        frame.write_parquet(buffer)
    return buffer.getvalue()


def save(path: Path, content: bytes) -> None:
    """Writes a result file whole, or not at all; what is no file (a pipe, /dev/null) is written to and stays what it is.

    Raises:
        OSError: it cannot be written there.
    """
    path = path.resolve()  # a link stays a link
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if path.exists() and not path.is_file():
        path.write_bytes(content)
        return
    try:
        write_whole(path, content)
    except OSError as error:  # names the file that was asked for, not the one aside
        raise OSError(error.errno, error.strerror, str(path)) from error


def _cell(value: object) -> str:
    if value is None:
        return "NULL"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
