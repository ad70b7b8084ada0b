"""Query results for people and programs: a table in the terminal, JSON, CSV, Parquet."""

import io
from pathlib import Path

import polars as pl
from rich.table import Table

from mech_pipeline.store.files.interface import readable_storage_errors
from mech_pipeline.store.files.local import write_whole

_SHOWN_ROWS = 200


def as_table(frame: pl.DataFrame) -> Table:
    """The first 200 rows for a terminal; says how many there are in all."""
    caption = f"{frame.height} rows"
    if frame.height > _SHOWN_ROWS:
        caption = f"{_SHOWN_ROWS} of {frame.height} rows: --format csv shows all"
    table = Table(caption=caption)
    for name, kind in frame.schema.items():
        table.add_column(name, justify="right" if kind.is_numeric() else "left", no_wrap=kind.is_numeric())
    for row in frame.head(_SHOWN_ROWS).iter_rows():
        table.add_row(*(_cell(value) for value in row))
    return table


def as_bytes(frame: pl.DataFrame, kind: str) -> bytes:
    """The whole result as "json" (an array of objects), "csv" or "parquet"."""
    buffer = io.BytesIO()
    if kind == "json":
        buffer.write(frame.write_json().encode() + b"\n")
    elif kind == "csv":
        frame.write_csv(buffer)
    else:
        frame.write_parquet(buffer)
    return buffer.getvalue()


def save(path: Path, content: bytes) -> None:
    """Writes a result file whole, or not at all."""
    with readable_storage_errors(str(path.parent)):
        write_whole(path, content)


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
