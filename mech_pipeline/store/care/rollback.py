"""Tables that have lost their last commits: the log ends before a version that was acknowledged (its checksums are there),
or its last entries are not what was written.

The table goes on from what its log still says. What the lost commits wrote is known from their data files, which usually
are whole: the cells in them that the table does not hold as they were are taken out of it, so that `mech run` makes them
again. Where a file is gone too, that is all of its run.
"""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from urllib.parse import unquote

import duckdb

from mech_pipeline.errors import MechError
from mech_pipeline.store import checksums, commits, delta
from mech_pipeline.store.care.findings import Finding, Lost, rows_lost
from mech_pipeline.store.care.repairing import Repairing
from mech_pipeline.store.checksums import Checksum
from mech_pipeline.store.delta import DataFile, TableVersion, partition_of
from mech_pipeline.store.files.interface import Files
from mech_pipeline.store.reading.connection import open_views, quoted
from mech_pipeline.store.reading.snapshot import Snapshot
from mech_pipeline.store.tables.all import TABLES, Table

Written = dict[str, Checksum]
"""Data files that lost commits wrote."""


def roll_back(work: Repairing, findings: list[Finding]) -> dict[str, Written]:
    """Ends each table that has lost its last commits, or whose last log entries are damaged, before them.

    Returns:
        by table, what these commits wrote.
    """
    undone = {}
    for name in dict.fromkeys(finding.table for finding in findings):
        bad = {finding.name for finding in findings if finding.table == name}
        top = max(delta.latest_version(work.files, name), checksums.newest_version(work.files, name))
        last = top
        while last >= 0 and delta.log_name(name, last) in bad and not _summarised(work.files, name, last, bad):
            last -= 1
        if 0 <= last < top and delta.folder(name) not in bad and _can_be_read(work.files, name, last):
            undone[name] = _undo(work, name, last, top)
    return undone


def _can_be_read(files: Files, name: str, version: int) -> bool:
    try:
        delta.table_version(files, name, version)
    except MechError:
        return False
    return True


def _summarised(files: Files, name: str, version: int, bad: set[str]) -> bool:
    """Whether a whole log checkpoint holds a version's state."""
    summary = f"{delta.folder(name)}/_delta_log/{version:020d}.checkpoint.parquet"
    return summary not in bad and files.info(summary) is not None


def _undo(work: Repairing, name: str, last: int, top: int) -> Written:
    """Takes the commits after a version out of a table's log and of its records."""
    files, records = work.files, checksums.read_records(work.files, name)
    written = _written(files, name, set(range(last + 1, top + 1)), records.files)
    for version in range(last + 1, top + 1):
        work.quarantine(delta.log_name(name, version))
    kept = {
        n: found for n, found in records.files.items() if "/_delta_log/" not in n or n <= delta.log_name(name, last)
    }
    for record in records.names:
        if checksums.version_of(record) > last:
            work.quarantine(record)
    checksums.record(files, name, last, kept, kind=".rolled")
    work.done.lines.append(f"table {name}: went back to version {last}; it had version {top}")
    live = delta.table_version(files, name, last).files
    if gone := [file for file in live if files.info(file.name) is None]:
        for file in gone:
            work.lose(rows_lost(name, file))
        delta.open_table(files, name).repair(post_commithook_properties=delta.NO_HOOKS)
        commits.record_new(files, name)
    return {file: found for file, found in written.items() if file not in {each.name for each in live}}


def _written(files: Files, name: str, versions: set[int], recorded: Written) -> Written:
    """The data files of some commits: from their own records, or all that no other log entry names."""
    own: Written = {}
    for record in checksums.record_names(files, name):
        if record.endswith(f"{checksums.version_of(record):020d}.json") and checksums.version_of(record) in versions:
            own |= checksums.parsed(record, name, files.read(record)) or {}
            versions = versions - {checksums.version_of(record)}
    if versions:
        others = [v for v in delta.versions(files, name) if v not in versions]
        named = {path for version in others for path in _named(files, name, version)}
        own |= {file: found for file, found in recorded.items() if file not in named}
    return {file: found for file, found in own.items() if file.endswith(".parquet") and "/_delta_log/" not in file}


def _named(files: Files, name: str, version: int) -> Iterator[str]:
    """Files that a commit added or removed."""
    with suppress(MechError, FileNotFoundError, KeyError, TypeError):
        for action in delta.commit_log(files, name, version):
            if change := action.get("add") or action.get("remove"):
                yield f"{delta.folder(name)}/{unquote(change['path'])}"


def take_out_lost_cells(work: Repairing, name: str, written: Written) -> None:
    """Takes what lost commits wrote out of a table, where the table holds it otherwise.

    Args:
        written: the data files of these commits.
    """
    table, whole, unknown = TABLES[name], [], set[str | None]()
    for file, expected in written.items():
        if work.files.info(file) is not None and checksums.checksum(work.files.read(file)) == expected:
            whole.append(DataFile(file, expected.bytes, -1, partition_of(file), {}))
        else:
            unknown.add(partition_of(file).get("run"))
    lost: dict[str | None, set[int] | None] = defaultdict(set)
    try:
        for run, step in _lost_cells(work, table, whole):
            steps = lost[run]
            if step is not None and steps is not None:
                steps.add(step)
            else:
                lost[run] = None
    except (duckdb.Error, OSError):
        unknown |= {file.partition.get("run") for file in whole}
    for run in unknown:
        lost[run] = None
    for run, steps in lost.items():
        _take_out(work, table, run, steps)


def _lost_cells(work: Repairing, table: Table, whole: list[DataFile]) -> Iterator[tuple[str | None, int | None]]:
    """(run, step) of the cells in some files that the table does not hold as they are there."""
    if not whole:
        return
    keys = [key for key in table.keys if key in ("run", "step", "method", table.item)]
    columns = [
        column.name for column in table.all_columns if column.name in (*keys, "input_fingerprint", "data_version")
    ]
    content = ", ".join(f'"{column.name}"' for column in table.all_columns if column.name != "uri")  # a name by chance
    named = ", ".join(f'"{name}"' for name in columns) or "0"
    sql = f"select {named}, count(*), bit_xor(hash({content})) from {table.name} group by all"
    schema = delta.table_version(work.files, table.name, delta.latest_version(work.files, table.name)).schema
    version = TableVersion(0, 0, tuple(whole), schema)
    with open_views(work.files, Snapshot({table.name: version})) as connection:
        written = set(connection.execute(sql).fetchall())
    with work.store.reading(table.name) as connection:
        held = set(connection.execute(sql).fetchall())
    for row in written - held:
        cell = dict(zip(columns, row, strict=False))
        yield cell.get("run"), cell.get("step")


def _take_out(work: Repairing, table: Table, run: str | None, steps: set[int] | None) -> None:
    where = [] if run is None else [f"run = {quoted(run)}"]
    where += [f"step in ({', '.join(map(str, sorted(steps)))})"] if steps else []
    if where:
        work.store.delete(table.name, " and ".join(where))
    key = {} if run is None else {"run": run}
    work.lose(Lost(table.name, key, None, (min(steps), max(steps)) if steps else None))
