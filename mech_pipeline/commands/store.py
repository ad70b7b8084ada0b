"""`mech maintain`, `mech migrate` and `mech warehouse`: the store kept well, and opened by other programs."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from mech_pipeline.commands.opening import existing_store
from mech_pipeline.commands.output import note, say


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
    for line in maintain_store(Store(root), timedelta(days=retention_days), dry_run=dry_run, emit=note):
        say(line)


def migrate() -> None:
    """Bring a store that an older version wrote up to date, in place."""
    from mech_pipeline.store.care.migrate import migrate_store

    for line in migrate_store(existing_store(), note):
        say(line)


def warehouse(
    folder: Annotated[
        Path | None, typer.Option(help="where to write it; default: a local store, or .mech/ of the project for S3")
    ] = None,
) -> None:
    """Write `warehouse.duckdb`: views over the store as it is now, for DuckDB's command line, harlequin, notebooks."""
    from mech_pipeline.store.reading.warehouse import write_warehouse

    say(write_warehouse(existing_store().root, folder))
