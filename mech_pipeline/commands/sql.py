"""`mech sql`: one query of the store, printed or written to a file."""

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from mech_pipeline.commands.opening import existing_store
from mech_pipeline.commands.output import in_terminal, show, write
from mech_pipeline.errors import MechError


class Format(StrEnum):
    """How a query's result is printed."""

    table = "table"
    json = "json"
    csv = "csv"
    parquet = "parquet"


def sql(
    query: Annotated[str, typer.Argument(help="one SELECT; `mech tables` lists tables and columns")],
    format: Annotated[
        Format | None, typer.Option(help="how to print the result; default: as the file's name ends, or a table")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="write to this file instead (needed for parquet in a terminal)")
    ] = None,
    at: Annotated[
        str | None, typer.Option(help="read the store as it was at this time, for example 2026-11-24T09:30")
    ] = None,
    version: Annotated[
        list[str] | None, typer.Option(help="read one table at a version: TABLE=N; may be repeated")
    ] = None,
) -> None:
    """Query the store. Read-only; every query sees all tables as they were at one moment.

    The view `snapshot` tells which version of each table that is. `mech history TABLE` lists versions.

    Example: mech sql "select run, step, value from mechanism_values order by value desc limit 5" --output top.csv
    """
    from mech_pipeline.store.reading import formats as export
    from mech_pipeline.store.reading.query import parse_time
    from mech_pipeline.store.reading.query import query as run_query

    files = existing_store()
    kind = format or _by_name(output)
    if kind is Format.parquet and output is None and in_terminal():
        raise MechError("Parquet is not for a terminal", "add --output FILE.parquet")
    moment, shape = parse_time(at) if at else None, export.shape_of(kind.value)
    frame = run_query(files.root, _text(query), at=moment, versions=_versions(version or []), shape=shape)
    if kind is Format.table and output is None:
        show(export.as_table(frame))
        return
    content = export.as_bytes(frame, "csv" if kind is Format.table else kind.value)
    if output is not None:
        export.save(output, content)
    else:
        write(content)


def _text(argument: str) -> str:
    """An argument as it was typed: where the locale knows no UTF-8, Python hands over bytes that it could not read.

    Raises:
        MechError: it is not UTF-8.
    """
    try:
        return os.fsencode(argument).decode()
    except UnicodeError as error:
        raise MechError(f"the query is not UTF-8: {argument!r}", "type it in a terminal with UTF-8") from error


def _by_name(output: Path | None) -> Format:
    """The format that a file's name asks for; CSV if it asks for none."""
    if output is None:
        return Format.table
    ending = output.suffix.removeprefix(".").lower()
    return Format(ending) if ending in ("json", "parquet") else Format.csv


def _versions(texts: list[str]) -> dict[str, int]:
    pairs = [text.partition("=") for text in texts]
    if wrong := [name for name, _, number in pairs if not number.isdigit()]:
        raise MechError(f"--version {wrong[0]}: a table and a number are needed", "write it like --version ledger=12")
    return {name: int(number) for name, _, number in pairs}
