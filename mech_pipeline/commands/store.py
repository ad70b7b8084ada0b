"""The commands of `mech` that ask the store or keep it well."""

import sys
import time
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table as RichTable

from mech_pipeline.errors import MechError

if TYPE_CHECKING:
    from mech_pipeline.store.files.interface import Files


class Format(StrEnum):
    """How a query's result is printed."""

    table = "table"
    json = "json"
    csv = "csv"
    parquet = "parquet"


def existing_store() -> "Files":
    """The store's files.

    Raises:
        MechError: there is no store there.
    """
    from mech_pipeline.home import store_root
    from mech_pipeline.store.files.open import open_files
    from mech_pipeline.store.layout import check_readable

    files = open_files(store_root())
    if check_readable(files) is None:
        raise MechError(f"there is no store at {files.root}", "`make demo` makes one, or set MECH_STORE")
    return files


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
    from mech_pipeline.store.reading.connection import parse_time
    from mech_pipeline.store.reading.connection import query as run_query

    files = existing_store()
    frame = run_query(files.root, query, at=parse_time(at) if at else None, versions=_versions(version or []))
    kind = format or _by_name(output)
    if kind is Format.table and output is None:
        _wide().print(export.as_table(frame))
        return
    content = export.as_bytes(frame, "csv" if kind is Format.table else kind.value)
    if output is not None:
        export.save(output, content)
    elif kind is Format.parquet and sys.stdout.isatty():
        raise MechError("Parquet is not for a terminal", "add --output FILE.parquet")
    else:
        sys.stdout.buffer.write(content)


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


def tables(name: Annotated[str | None, typer.Argument(help="one table; default: all")] = None) -> None:
    """List tables, or the columns of one, with units and meanings."""
    from mech_pipeline.store.tables.all import SNAPSHOT, SNAPSHOT_COLUMNS, SNAPSHOT_MEANING, TABLES

    if name is None:
        shown = RichTable("table", "a row is", "columns")
        for table in TABLES.values():
            shown.add_row(table.name, table.meaning, ", ".join(column.name for column in table.columns))
        shown.add_row(SNAPSHOT, SNAPSHOT_MEANING, SNAPSHOT_COLUMNS)
    elif name in TABLES:
        shown = RichTable("column", "type", "unit", "meaning", title=TABLES[name].meaning)
        for column in TABLES[name].all_columns:
            kind = f"{column.type}, may be empty" if column.nullable else column.type
            shown.add_row(column.name, kind, column.unit, column.meaning)
    else:
        raise MechError(f"there is no table {name!r}", f"tables are {', '.join(TABLES)}")
    Console().print(shown)


def history(
    table: Annotated[str, typer.Argument(help="a table, for example ledger")],
    limit: Annotated[int, typer.Option(help="newest versions to show", min=1)] = 20,
) -> None:
    """List the versions of a table: when, what, by which Dagster run, code and git commit.

    Read one again with `mech sql --version TABLE=N …`, until `mech maintain` removes its files.
    """
    from mech_pipeline.store.reading.history import table_history

    shown = RichTable("version", "committed", "operation", "rows", "code", "git", "Dagster run", "content", "readable")
    for row in table_history(existing_store(), table, limit):
        shown.add_row(
            str(row.version),
            f"{row.committed:%Y-%m-%dT%H:%M:%SZ}",
            row.operation,
            "" if row.rows is None else str(row.rows),
            row.code_version,
            row.git_commit[:8],
            row.dagster_run[:8],
            row.content[:8],
            "yes" if row.readable else "no",
        )
    _wide().print(shown)


def verify(
    repair: Annotated[
        bool, typer.Option("--repair", help="take damaged files out, register again what is whole, name what is lost")
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="existence and sizes only; finds no flipped bits")] = False,
) -> None:
    """Check every file of the store: size, SHA-256, rows against the tables' descriptions, index rows against blobs.

    Reads everything (about 0.5 GB/s). Exit code 1 if anything is damaged. Orphans (files that nothing names, left by
    killed writers) are counted and are no damage: `mech maintain` removes them.
    """
    from mech_pipeline.store.care.repair import repair_store
    from mech_pipeline.store.care.verify import verify_store

    files, began = existing_store(), time.monotonic()
    found = verify_store(files, quick=quick, emit=_emit)
    for finding in found.damage:
        print(f"{finding.kind:<10} {finding.name}: {finding.problem}")
    if found.orphans:
        print(f"{len(found.orphans)} orphans, {sum(e.bytes for e in found.orphans) / 1e6:.1f} MB: no damage")
    took = f"{found.checked} files, {found.bytes / 1e6:.0f} MB, {time.monotonic() - began:.1f} s"
    if not found.damage:
        print(f"whole: {took}")
        return
    if not repair:
        raise MechError(f"{len(found.damage)} faults in {took}", "`mech verify --repair`")
    from mech_pipeline.pipeline.stages import makers  # only now: it loads all of the pipeline

    done = repair_store(files, found, _emit, makers())
    for line in done.lines:
        print(line)
    if done.lost:
        print("to be made again:")
        for lost in done.lost:
            print(f"  {lost}")
        print("`mech run` each experiment named, or materialize these partitions in the UI")


def maintain(
    retention_days: Annotated[
        float,
        typer.Option(help="keep what was replaced for this long: older versions stay readable, running writers safe"),
    ] = 7.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="tell what would be done, change nothing")] = False,
) -> None:
    """Compact finished runs, checkpoint the logs, remove what is older than the retention and named by nothing.

    Safe beside running writers and readers: nothing that a live version needs is touched, and files younger than the
    retention stay. A connection that has been open for longer than that gets a clear error.
    """
    from mech_pipeline.store.care.maintain import maintain_store
    from mech_pipeline.store.store import Store

    root = existing_store().root
    for line in maintain_store(Store(root), timedelta(days=retention_days), dry_run=dry_run, emit=_emit):
        print(line)


def migrate() -> None:
    """Bring a store that an older version wrote up to date, in place."""
    from mech_pipeline.store.care.migrate import migrate_store

    for line in migrate_store(existing_store(), _emit):
        print(line)


def warehouse(
    folder: Annotated[
        Path | None, typer.Option(help="where to write it; default: a local store, or .mech/ of the project for S3")
    ] = None,
) -> None:
    """Write `warehouse.duckdb`: views over the store as it is now, for DuckDB's command line, harlequin, notebooks."""
    from mech_pipeline.home import local_folder
    from mech_pipeline.store.reading.warehouse import write_warehouse

    root = existing_store().root
    print(write_warehouse(root, folder or local_folder(root)))


def _wide() -> Console:
    """Without a terminal, lines are not cut at 80 characters."""
    console = Console()
    return console if console.is_terminal else Console(width=160)


def _emit(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
