"""Tables: logs that are summarised anew or given up, data files and cells that are taken out, checksums that are kept."""

from pathlib import Path

from mech_pipeline.store import checksums, commits, delta
from mech_pipeline.store.care.findings import Finding, Lost, rows_lost
from mech_pipeline.store.care.repairing import Repairing
from mech_pipeline.store.delta import partition_of
from mech_pipeline.store.files.interface import Files
from mech_pipeline.store.reading.connection import quoted
from mech_pipeline.store.tables.all import TABLES, Table


def repair_logs(work: Repairing, findings: list[Finding]) -> None:
    """A table whose state survives elsewhere (a whole log checkpoint, or all of the log) keeps it."""
    for name in dict.fromkeys(finding.table for finding in findings):
        bad = [finding.name for finding in findings if finding.table == name and finding.name != delta.folder(name)]
        for file in bad:
            if file.endswith((".parquet", "_last_checkpoint")):
                work.quarantine(file)
        if any(finding.name == delta.folder(name) for finding in findings) or not _reopen(work, name, bad):
            _abandon(work, name)


def _reopen(work: Repairing, name: str, bad: list[str]) -> bool:
    """Whether the table can be opened without its damaged commits: its state is then summarised anew."""
    numbers = [int(Path(file).stem) for file in bad if file.endswith(".json")]
    try:
        opened = delta.open_table(work.files, name)
        if not numbers:
            return True
        if any(work.files.info(file.name) is None for file in _live(work.files, name)):
            return False
        commits.checkpoint_log(work.files, name, opened)
        gone = [v for v in delta.versions(work.files, name) if v <= max(numbers)]
        for version in gone:
            work.quarantine(delta.log_name(name, version))
        delta.open_table(work.files, name)
    except Exception as error:
        work.emit(f"table {name} cannot be opened: {' '.join(str(error).split())[:200]}")
        return False
    work.done.lines.append(f"table {name}: its state is kept, its older versions can no longer be read")
    return True


def _abandon(work: Repairing, name: str) -> None:
    recorded = checksums.read_records(work.files, name).files
    runs = {run for file in recorded if (run := partition_of(file).get("run")) is not None}
    for entry in list(work.files.entries(delta.folder(name))) + list(work.files.entries(f"checksums/{name}")):
        work.files.write(f"quarantine/{entry.name}", work.files.read(entry.name))
        work.files.remove([entry.name])
    work.done.lines.append(f"moved the table {name} to quarantine/: its log is beyond repair")
    for key in [{"run": run} for run in sorted(runs)] if runs and TABLES[name].part_of else [{}]:
        work.lose(Lost(name, key))


def repair_data(work: Repairing, findings: list[Finding]) -> None:
    """Takes damaged and missing files out of their tables."""
    for name in dict.fromkeys(finding.table for finding in findings):
        for finding in findings:
            if finding.table != name:
                continue
            work.quarantine(finding.name)
            assert finding.file is not None, "findings about data know their file"
            work.lose(rows_lost(name, finding.file))
        delta.open_table(work.files, name).repair(post_commithook_properties=delta.NO_HOOKS)
        commits.record_new(work.files, name)


def remove_repeated(work: Repairing, table: Table) -> None:
    """Takes out whole cells in which a key repeats: which of the rows is right is not known."""
    keys = ", ".join(f'"{key}"' for key in table.keys)
    cell = [key for key in table.keys if key in ("run", "step")] or list(table.keys)
    with work.store.reading(table.name) as connection:
        sql = f"select distinct {', '.join(cell)} from {table.name} group by {keys} having count(*) > 1"
        cells = connection.execute(sql).fetchall()
    for values in cells:
        where = " and ".join(
            f"{key} = {value if isinstance(value, int) else quoted(value)}"
            for key, value in zip(cell, values, strict=True)
        )
        work.store.delete(table.name, where)
        work.lose(Lost(table.name, dict(zip(cell, values, strict=True))))


def record_checksums(work: Repairing, tables: list[str]) -> None:
    """Keeps checksums of files that have none and read well."""
    for name in dict.fromkeys(tables):
        known = checksums.read_records(work.files, name).files
        logs = [delta.log_name(name, version) for version in delta.versions(work.files, name)]
        live = [file.name for file in _live(work.files, name)]
        missing = [n for n in logs + live if n not in known and work.files.info(n) is not None]
        if missing:
            version = delta.latest_version(work.files, name)
            sums = {n: checksums.checksum(work.files.read(n)) for n in missing}
            checksums.record(work.files, name, version, sums, kind=".repaired")
            work.done.lines.append(f"recorded the checksums of {len(missing)} files of {name} that read well")


def _live(files: Files, name: str) -> tuple[delta.DataFile, ...]:
    version = delta.latest_version(files, name)
    return delta.table_version(files, name, version).files if version >= 0 else ()
