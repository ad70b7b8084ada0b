"""Tables: their logs, the checksums beside them, their data files, and that no key occurs twice."""

import time
from collections.abc import Mapping

from mech_pipeline.errors import MechError
from mech_pipeline.store import checksums, delta
from mech_pipeline.store.care.contents import GONE, log_faults, row_faults
from mech_pipeline.store.care.inspection import Inspection
from mech_pipeline.store.care.references import is_temporary
from mech_pipeline.store.checksums import Checksum
from mech_pipeline.store.delta import DataFile, TableVersion
from mech_pipeline.store.files.interface import Files
from mech_pipeline.store.reading.connection import open_views
from mech_pipeline.store.reading.snapshot import Snapshot
from mech_pipeline.store.tables.all import TABLES, Table

_RECORD_SECONDS = 1.0
Newest = TableVersion | MechError | None


def newest_version(files: Files, name: str) -> Newest:
    """The newest version of a table; none if it was never written; the error if it cannot be opened."""
    try:
        version = delta.latest_version(files, name)
        found = delta.table_version(files, name, version) if version >= 0 else None
        if found is not None:
            delta.check_columns(TABLES[name], found.schema)
    except MechError as error:
        return error
    return found


def verify_tables(
    look: Inspection, newest: Mapping[str, Newest], acknowledged: Mapping[str, int]
) -> dict[str, TableVersion | None]:
    """Checks the files of all tables; returns each one's newest version with only the whole files in it.

    Args:
        newest: versions, taken before the files were listed.
        acknowledged: the newest version of each table that has a record, taken before that.
    """
    whole: dict[str, TableVersion | None] = {}
    for name, table in TABLES.items():
        if logs := [entry for entry in look.listing if entry.startswith(f"{delta.folder(name)}/_delta_log/")]:
            last = max(
                (int(log.rsplit("/", 1)[1][:20]) for log in logs if log.rsplit("/", 1)[1][:20].isdigit()), default=-1
            )
            for version in range(last + 1, acknowledged[name] + 1):
                look.damage("missing", delta.log_name(name, version), "a commit that was acknowledged", "log", name)
            whole[name] = _verify_table(look, table, newest[name])
        elif any(entry.startswith(f"{delta.folder(name)}/") for entry in look.listing):
            look.damage("missing", delta.folder(name), "the table's log is gone", "log", name)
        elif records := [entry for entry in look.listing if entry.startswith(f"checksums/{name}/")]:
            look.known.update(records)
            version = max(map(checksums.version_of, records))
            look.damage("missing", delta.folder(name), f"the table is gone; it had version {version}", "log", name)
    return whole


def verify_keys(look: Inspection, whole: Mapping[str, TableVersion | None]) -> None:
    """Rows that repeat a key, one of each table."""
    if look.quick:
        return
    with open_views(look.files, Snapshot(dict(whole))) as connection:
        for name in whole:
            keys = ", ".join(f'"{key}"' for key in TABLES[name].keys)
            sql = f"select {keys}, count(*) from {name} group by all having count(*) > 1 limit 1"
            if repeated := connection.execute(sql).fetchall():
                key = dict(zip(TABLES[name].keys, repeated[0], strict=False))
                look.damage("corrupt", delta.folder(name), f"rows repeat the key {key}", "keys", name)


def _verify_table(look: Inspection, table: Table, newest: Newest) -> TableVersion | None:
    records = checksums.read_records(look.files, table.name)
    look.known.update(records.names)
    for name in records.damaged:
        look.damage("corrupt", name, "the record's own SHA-256 does not fit", "checksum", table.name)
    log_is_bad = _verify_log(look, table, records.files)
    if isinstance(newest, TableVersion):
        good = _verify_data_files(look, table, newest, records.files)
        return TableVersion(newest.version, newest.committed, tuple(good), newest.schema)
    if newest is not None and not log_is_bad:
        look.damage("corrupt", delta.folder(table.name), newest.problem, "log", table.name)
    look.known.update(n for n in look.listing if n.startswith(f"{delta.folder(table.name)}/"))
    names = [n for n in records.files if n in look.listing and "/_delta_log/" not in n]
    for name, wrong in look.contents(names, records.files):
        if wrong:
            look.damage("corrupt", name, f"{wrong}; the table cannot be opened", "older", table.name)
    return None


def _verify_log(look: Inspection, table: Table, recorded: dict[str, Checksum]) -> bool:
    """Checks log files; whether any is bad."""
    folder, before = f"{delta.folder(table.name)}/_delta_log/", len(look.found.damage)
    present = [name for name in look.listing if name.startswith(folder)]
    look.known.update(name for name in present if not is_temporary(name))
    versions = delta.versions(look.files, table.name)
    gaps = sorted(set(range(versions[0], versions[-1])) - set(versions)) if versions else []
    for version in gaps:
        look.damage("missing", delta.log_name(table.name, version), "a commit is missing", "log", table.name)
    wanted = [name for name in present if name in recorded or name.endswith((".json", ".parquet", "_last_checkpoint"))]
    parses = {name for name in wanted if name not in recorded}  # its writer was killed just after the commit
    for name, wrong in look.contents(
        wanted, recorded, lambda name, content: log_faults(name, content) if name in parses else None
    ):
        if wrong:
            look.damage("corrupt", name, wrong, "log", table.name)
    return len(look.found.damage) > before


def _verify_data_files(
    look: Inspection, table: Table, newest: TableVersion, recorded: dict[str, Checksum]
) -> list[DataFile]:
    """The files of the newest version that are whole."""
    live = {file.name: file for file in newest.files}
    look.known.update(live)
    look.known.update(name for name in recorded if name in look.listing)
    bad = {file.name for file in newest.files if not _has_its_size(look, table, file)}
    names = [name for name in live if name not in bad]
    if not look.quick and not set(names) <= set(recorded):
        time.sleep(_RECORD_SECONDS)  # a running writer records a moment after it commits
        recorded = checksums.read_records(look.files, table.name).files
    for name, wrong in look.contents(names, recorded, lambda n, content: row_faults(table, live[n], content)):
        if wrong:
            bad.add(name)
            look.damage("corrupt", name, wrong, "data", table.name, live[name])
        elif name not in recorded and not look.quick:
            look.damage("unrecorded", name, "reads well, has no checksum", "data", table.name, live[name])
    _verify_older_files(look, table, live, recorded)
    return [file for file in newest.files if file.name not in bad]


def _verify_older_files(
    look: Inspection, table: Table, live: Mapping[str, DataFile], recorded: dict[str, Checksum]
) -> None:
    prefix = f"{delta.folder(table.name)}/_delta_log/"
    older = [n for n in recorded if n not in live and not n.startswith(prefix) and n in look.listing]
    for name, wrong in look.contents(older, recorded):
        if wrong and wrong != GONE:
            look.damage("corrupt", name, f"{wrong}; of an older version", "older", table.name)


def _has_its_size(look: Inspection, table: Table, file: DataFile) -> bool:
    there = look.entry(file.name)
    if there is None:
        look.damage("missing", file.name, "", "data", table.name, file)
    elif there.bytes != file.bytes:
        size = f"{there.bytes} bytes, {file.bytes} were written"
        look.damage("corrupt", file.name, size, "data", table.name, file)
    return there is not None and there.bytes == file.bytes
