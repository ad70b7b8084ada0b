"""Keeping a store small and fast, beside running writers and readers.

Per finished run and table: compaction. Per table: a checkpoint of the log, vacuum of data files that no version within
the retention needs, one checksum record instead of many. For the store: blobs that no data file names any more, and
what killed writers left. Only files older than the retention are removed, so a writer between its file and its commit,
and a reader on a version that was replaced, lose nothing.
"""

import time
from collections.abc import Iterable
from contextlib import nullcontext
from datetime import timedelta

from mech_pipeline.errors import MechError
from mech_pipeline.progress import Emit
from mech_pipeline.store import checked, checksums, commits, delta
from mech_pipeline.store.care.compaction import compact, files_of
from mech_pipeline.store.care.references import is_temporary, named_blobs
from mech_pipeline.store.delta import DataFile
from mech_pipeline.store.files.interface import readable_storage_errors
from mech_pipeline.store.store import Store
from mech_pipeline.store.tables.all import TABLES

SHORTEST = timedelta(hours=1)
_COMPACT_FROM = 2
"""Files of one run in one table from which compaction is worth a commit when it is asked for."""
_CROWDED = 12
"""Files of one run in one table from which the pipeline compacts by itself."""


def maintain_store(
    store: Store,
    retention: timedelta = timedelta(days=7),
    *,
    dry_run: bool = False,
    emit: Emit = lambda line: None,
) -> list[str]:
    """Does all of the above; returns a line for each thing done.

    Raises:
        MechError: the retention is shorter than an hour, the store cannot be written, or is damaged.
    """
    if retention < SHORTEST:
        raise MechError(
            f"a retention of {retention} would take files from under running writers and readers",
            f"choose at least {SHORTEST}",
        )
    with nullcontext() if dry_run else store.lock("maintain", "maintain the store"):
        lines = compact_runs(store, finished_runs(store), dry_run=dry_run, emit=emit)
        for name in TABLES:
            if checked.newest_version(store.files, name) >= 0:
                emit(f"maintain {name}: log, vacuum, checksums")
                lines += _tidy_table(store, name, retention, dry_run)
        lines += remove_unnamed(store, retention, dry_run=dry_run)
    return lines or ["nothing to do"]


def finished_runs(store: Store) -> list[str]:
    """Runs whose training is complete."""
    with store.reading("runs") as connection:
        return [row[0] for row in connection.execute("select run from runs where status = 'complete'").fetchall()]


def compact_runs(
    store: Store, runs: Iterable[str], *, dry_run: bool = False, emit: Emit = lambda line: None
) -> list[str]:
    """Compacts what finished runs have in more than one file, and the tables without runs; see `compaction`."""
    lines = []
    wanted: set[str | None] = {None, *runs}
    for name in TABLES:
        version = checked.newest_version(store.files, name)
        if version < 0:
            continue
        found = delta.table_version(store.files, name, version)
        for run in sorted({file.partition.get("run") for file in found.files} & wanted, key=str):
            count = len(files_of(found, run))
            if count < _COMPACT_FROM:
                continue
            what = f"{name}{'' if run is None else ' of ' + run}: {count} files into 1"
            emit(f"compact {what}")
            if not dry_run:
                try:
                    compact(store, name, run)
                except MechError as error:
                    lines.append(f"left {what}: {error}")
                    continue
            lines.append(f"compacted {what}")
    return lines


def crowded_tables(store: Store, run: str) -> list[str]:
    """Tables in which a run has so many files that queries get slow."""
    return [name for name in TABLES if len(_run_files(store, name, run)) >= _CROWDED]


def _run_files(store: Store, name: str, run: str | None) -> list[DataFile]:
    version = delta.latest_version(store.files, name)
    return files_of(delta.table_version(store.files, name, version), run) if version >= 0 else []


def _tidy_table(store: Store, name: str, retention: timedelta, dry_run: bool) -> list[str]:
    files, lines = store.files, []
    opened = delta.open_table(files, name)
    with readable_storage_errors(store.root):
        hours = max(1, round(retention.total_seconds() / 3600))
        unneeded = opened.vacuum(retention_hours=hours, dry_run=True, enforce_retention_duration=False, full=True)
        if unneeded and not dry_run:
            properties = store.commit_properties("vacuum", "", "", operation="VACUUM")
            opened.vacuum(
                retention_hours=hours,
                dry_run=False,
                enforce_retention_duration=False,
                full=True,
                commit_properties=properties,
                post_commithook_properties=delta.NO_HOOKS,
            )
        if unneeded:
            lines.append(f"vacuumed {name}: {len(unneeded)} files that no version of the last {retention} needs")
        if dry_run:
            return lines
        opened = delta.open_table(files, name)
        commits.record_new(store.files, name)
        if f"{opened.version():020d}.checkpoint.parquet" not in files.names(f"{delta.folder(name)}/_delta_log"):
            commits.checkpoint_log(store.files, name, opened)
        opened.cleanup_metadata()
    if folded := checksums.fold(files, name, lambda: (entry.name for entry in files.entries(delta.folder(name)))):
        lines.append(f"checksums of {name}: {folded} records into 1")
    return lines


def remove_unnamed(store: Store, retention: timedelta, *, dry_run: bool = False) -> list[str]:
    """Removes blobs that no data file names, and what killed writers left, if older than the retention."""
    files, oldest = store.files, time.time() - retention.total_seconds()
    listing = {entry.name: entry for entry in files.entries()}
    named = named_blobs(files, listing)
    gone = [
        entry
        for name, entry in listing.items()
        if entry.modified < oldest and ((name.startswith("blobs/") and name not in named) or is_temporary(name))
    ]
    if not gone:
        return []
    if not dry_run:
        files.remove([entry.name for entry in gone])
    return [f"removed {len(gone)} files that nothing names, {sum(e.bytes for e in gone) / 1e6:.1f} MB"]
