"""What follows a Delta commit: its files are sealed, their checksums recorded, and from time to time its log summarised."""

from typing import Any

from deltalake import DeltaTable

from mech_pipeline.store import checksums, delta
from mech_pipeline.store.files.interface import Files

_LOG_CHECKPOINT_EVERY = 25  # commits; opening a table reads the log since then


def record(files: Files, table: str, opened: DeltaTable, mark: str, before: int) -> None:
    """Flushes a commit to disk and keeps the checksums of its log and its files.

    Args:
        mark: what the commit calls itself; other writers may have committed after it.
        before: the version on which it was made.
    """
    for version in range(opened.version(), before, -1):
        actions = delta.commit_log(files, table, version)
        if delta.commit_info(actions).get("mech.commit") == mark:
            break
    else:
        return  # nothing was to be done, so nothing was committed
    _record_version(files, table, version, actions)
    if version and version % _LOG_CHECKPOINT_EVERY == 0:
        checkpoint_log(files, table, opened)


def _record_version(files: Files, table: str, version: int, actions: list[dict[str, Any]]) -> None:
    names = [delta.log_name(table, version), *(found.name for found in delta.added_files(table, actions))]
    files.seal(names)
    sums = {name: checksums.checksum(files.read(name)) for name in names}
    checksums.record(files, table, version, sums)


def record_new(files: Files, table: str) -> None:
    """Keeps checksums of a table's commits that have none and add no files (creation, vacuum, new columns)."""
    known = checksums.read_records(files, table).files
    for version in delta.versions(files, table):
        if delta.log_name(table, version) not in known:
            actions = delta.commit_log(files, table, version)
            if not delta.added_files(table, actions):
                _record_version(files, table, version, actions)


def checkpoint_log(files: Files, table: str, opened: DeltaTable) -> None:
    """Writes Delta's summary of the log up to now, so that opening the table reads one file."""
    opened.create_checkpoint()
    version, folder = opened.version(), f"{delta.folder(table)}/_delta_log"
    names = [f"{folder}/{version:020d}.checkpoint.parquet", f"{folder}/_last_checkpoint"]
    sums = {name: checksums.checksum(files.read(name)) for name in names}
    checksums.record(files, table, version, sums, kind=".log")
