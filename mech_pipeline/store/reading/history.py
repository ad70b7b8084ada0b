"""What happened to a table: one row a commit, from the Delta log."""

from dataclasses import dataclass
from datetime import UTC, datetime

from mech_pipeline.errors import MechError, unknown
from mech_pipeline.store import delta
from mech_pipeline.store.checked import check_newest, recorded
from mech_pipeline.store.files.interface import Files
from mech_pipeline.store.tables.all import TABLES


@dataclass(frozen=True)
class TableCommit:
    """One commit.

    Attributes:
        rows: rows written by it; none for commits that write none.
        content: SHA-256 of those rows.
        readable: whether all files of this version are still there.
    """

    version: int
    committed: datetime
    operation: str
    rows: int | None
    code_version: str
    git_commit: str
    dagster_run: str
    content: str
    readable: bool


def table_history(files: Files, table: str, limit: int) -> list[TableCommit]:
    """The newest commits of a table, newest first.

    Raises:
        MechError: there is no such table, it was never written, or it has lost versions.
    """
    if table not in TABLES:
        raise unknown("table", table, TABLES)
    known = recorded(files, table)
    check_newest(known, delta.latest_version(files, table))
    found = delta.versions(files, table)
    if not found:
        raise MechError(f"table {table} was never written", "`mech run` an experiment first")
    there = {entry.name for entry in files.entries(delta.folder(table))}
    return [_commit(files, table, version, there) for version in reversed(found[-limit:])]


def _commit(files: Files, table: str, version: int, there: set[str]) -> TableCommit:
    info = delta.commit_info(delta.commit_log(files, table, version))
    rows = info.get("operationMetrics", {}).get("num_added_rows", info.get("mech.rows"))
    try:
        readable = all(file.name in there for file in delta.table_version(files, table, version).files)
    except MechError:
        readable = False
    return TableCommit(
        version,
        datetime.fromtimestamp(info.get("timestamp", 0) / 1000, UTC),
        info.get("mech.operation", info.get("operation", "")),
        None if rows is None else int(rows),
        info.get("mech.code_version", ""),
        info.get("mech.git_commit", ""),
        info.get("mech.dagster_run", ""),
        info.get("mech.content", ""),
        readable,
    )
