"""Every file of the store against what was written: sizes, SHA-256, rows against descriptions, index rows against blobs.

What is read: every data file, log file and blob, once. What a finding means: `findings`.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from mech_pipeline.errors import MechError
from mech_pipeline.progress import Progress
from mech_pipeline.store import checksums, delta
from mech_pipeline.store.blobs import Blob, named_sha256
from mech_pipeline.store.care.contents import GONE, Check, check_contents, log_faults, row_faults
from mech_pipeline.store.care.findings import Finding, Verification, rows_of
from mech_pipeline.store.care.references import is_temporary, named_blobs
from mech_pipeline.store.checksums import Checksum
from mech_pipeline.store.delta import DataFile, TableVersion
from mech_pipeline.store.files.interface import Files
from mech_pipeline.store.layout import check_mark
from mech_pipeline.store.reading.connection import open_views
from mech_pipeline.store.reading.snapshot import Snapshot
from mech_pipeline.store.tables.all import TABLES, Table

_RECORD_SECONDS = 1.0


def verify_store(files: Files, *, quick: bool = False, emit: Callable[[str], None] = lambda line: None) -> Verification:
    """Checks the whole store.

    Args:
        quick: existence and sizes only.
        emit: receives progress lines.
    """
    return _Verifier(files, quick, emit).run()


class _Verifier:
    def __init__(self, files: Files, quick: bool, emit: Callable[[str], None]) -> None:
        self.files, self.quick = files, quick
        self.found = Verification()
        # Versions before files: what a running writer adds from here on is in neither.
        self.newest = {name: self._newest(name) for name in TABLES}
        self.listing = {entry.name: entry for entry in files.entries()}
        self.known: set[str] = {"store.json", "store.layout", "warehouse.duckdb"}
        total = max(1, round(sum(entry.bytes for entry in self.listing.values()) / 1e6))
        self._progress = Progress(emit, f"verify {files.root}", total, "MB")

    def run(self) -> Verification:
        if problem := check_mark(self.files):
            self.damage("corrupt", "store.json", problem, "mark")
        whole: dict[str, TableVersion | None] = {}
        for name, table in TABLES.items():
            if any(entry.startswith(f"{delta.folder(name)}/_delta_log/") for entry in self.listing):
                whole[name] = self._table(table)
            elif any(entry.startswith(f"{delta.folder(name)}/") for entry in self.listing):
                self.damage("missing", delta.folder(name), "the table's log is gone", "log", name)
        self._unique_keys(whole)
        self._blobs(whole)
        self._generated()
        self._orphans()
        return self.found

    def _newest(self, name: str) -> TableVersion | MechError | None:
        """The newest version of a table; none if it was never written; the error if it cannot be opened."""
        try:
            version = delta.latest_version(self.files, name)
            found = delta.table_version(self.files, name, version) if version >= 0 else None
            if found is not None:
                delta.check_columns(TABLES[name], found.schema)
        except MechError as error:
            return error
        return found

    def damage(
        self, kind: str, name: str, problem: str, role: str, table: str = "", file: DataFile | None = None
    ) -> None:
        self.found.damage.append(Finding(kind, name, problem, role, table, file))

    # tables

    def _table(self, table: Table) -> TableVersion | None:
        """Checks a table's files; returns its newest version with only the whole files in it."""
        records = checksums.read_records(self.files, table.name)
        self.known.update(records.names)
        for name in records.damaged:
            self.damage("corrupt", name, "the record's own SHA-256 does not fit", "checksum", table.name)
        bad_log = self._log(table, records.files)
        newest = self.newest[table.name]
        if newest is None or isinstance(newest, MechError):
            if newest is not None and not bad_log:
                self.damage("corrupt", delta.folder(table.name), newest.problem, "log", table.name)
            self.known.update(n for n in self.listing if n.startswith(f"{delta.folder(table.name)}/"))
            names = [n for n in records.files if n in self.listing and "/_delta_log/" not in n]
            for name, problem in self._contents(names, records.files):
                if problem:
                    self.damage("corrupt", name, f"{problem}; the table cannot be opened", "older", table.name)
            return None
        good = self._data_files(table, newest, records.files)
        return TableVersion(newest.version, newest.committed, tuple(good), newest.schema)

    def _log(self, table: Table, recorded: dict[str, Checksum]) -> bool:
        """Checks log files; whether any is bad."""
        folder, before = f"{delta.folder(table.name)}/_delta_log/", len(self.found.damage)
        present = [name for name in self.listing if name.startswith(folder)]
        self.known.update(name for name in present if not is_temporary(name))
        versions = delta.versions(self.files, table.name)
        gaps = sorted(set(range(versions[0], versions[-1])) - set(versions)) if versions else []
        for version in gaps:
            self.damage("missing", delta.log_name(table.name, version), "a commit is missing", "log", table.name)
        wanted = [
            name for name in present if name in recorded or name.endswith((".json", ".parquet", "_last_checkpoint"))
        ]
        parses = {name for name in wanted if name not in recorded}  # its writer was killed just after the commit
        for name, problem in self._contents(
            wanted, recorded, lambda name, content: log_faults(name, content) if name in parses else None
        ):
            if problem:
                self.damage("corrupt", name, problem, "log", table.name)
        return len(self.found.damage) > before

    def _data_files(self, table: Table, newest: TableVersion, recorded: dict[str, Checksum]) -> list[DataFile]:
        live = {file.name: file for file in newest.files}
        self.known.update(live)
        self.known.update(name for name in recorded if name in self.listing)
        bad = {file.name for file in newest.files if not self._has_its_size(table, file)}
        names = [name for name in live if name not in bad]
        if not self.quick and not set(names) <= set(recorded):
            time.sleep(_RECORD_SECONDS)  # a running writer records a moment after it commits
            recorded = checksums.read_records(self.files, table.name).files
        for name, problem in self._contents(names, recorded, lambda n, content: row_faults(table, live[n], content)):
            file = live[name]
            if problem:
                bad.add(name)
                self.damage("corrupt", name, f"{problem}; {rows_of(file)}", "data", table.name, file)
            elif name not in recorded and not self.quick:
                problem = f"reads well, has no checksum; {rows_of(file)}"
                self.damage("unrecorded", name, problem, "data", table.name, file)
        prefix = f"{delta.folder(table.name)}/_delta_log/"
        older = [n for n in recorded if n not in live and not n.startswith(prefix) and n in self.listing]
        for name, problem in self._contents(older, recorded):
            if problem and problem != GONE:
                self.damage("corrupt", name, f"{problem}; of an older version", "older", table.name)
        return [file for file in newest.files if file.name not in bad]

    def _has_its_size(self, table: Table, file: DataFile) -> bool:
        there = self.listing.get(file.name)
        if there is None:
            self.damage("missing", file.name, f"{rows_of(file)} is gone", "data", table.name, file)
        elif there.bytes != file.bytes:
            size = f"{there.bytes} bytes, {file.bytes} were written; {rows_of(file)}"
            self.damage("corrupt", file.name, size, "data", table.name, file)
        return there is not None and there.bytes == file.bytes

    def _unique_keys(self, whole: dict[str, TableVersion | None]) -> None:
        if self.quick:
            return
        with open_views(self.files, Snapshot(whole)) as connection:
            for name in whole:
                keys = ", ".join(f'"{key}"' for key in TABLES[name].keys)
                sql = f"select {keys}, count(*) from {name} group by all having count(*) > 1 limit 1"
                if repeated := connection.execute(sql).fetchall():
                    key = dict(zip(TABLES[name].keys, repeated[0], strict=False))
                    self.damage("corrupt", delta.folder(name), f"rows repeat the key {key}", "keys", name)

    # blobs and the rest

    def _blobs(self, whole: dict[str, TableVersion | None]) -> None:
        for name, found in whole.items():
            if found is None or not TABLES[name].has_blobs:
                continue
            with open_views(self.files, Snapshot({name: found})) as connection:
                rows = connection.execute(f"select distinct uri, bytes, sha256 from {name} order by uri").fetchall()
            blobs = {uri: Blob(uri, size, sha256) for uri, size, sha256 in rows}
            self.known.update(blobs)
            there = []
            for blob in blobs.values():
                if blob.uri not in self.listing:
                    self.damage("missing", blob.uri, f"table {name} names it", "blob", name)
                elif self.listing[blob.uri].bytes != blob.bytes:
                    problem = f"{self.listing[blob.uri].bytes} bytes, {blob.bytes} were written"
                    self.damage("corrupt", blob.uri, problem, "blob", name)
                else:
                    there.append(blob.uri)
            sums = {blob.uri: Checksum(blob.bytes, blob.sha256) for blob in blobs.values()}
            for uri, wrong in self._contents(there, sums):
                if wrong:
                    self.damage("corrupt", uri, wrong, "blob", name)
        self._unnamed_blobs()

    def _unnamed_blobs(self) -> None:
        """Blobs whose rows are lost (their data file or table is damaged) or old: against the SHA-256 in their names."""
        unnamed = [n for n in self.listing if n.startswith("blobs/") and n not in self.known and named_sha256(n)]

        def differs(name: str, content: bytes) -> str | None:
            head = str(named_sha256(name))
            found = checksums.checksum(content).sha256
            return None if found.startswith(head) else f"its SHA-256 does not begin with {head}"

        for name, problem in self._contents(unnamed, {}, differs):
            if problem and problem != GONE:
                self.damage("corrupt", name, problem, "blob")

    def _generated(self) -> None:
        """The newest report pages are copies of blobs; `warehouse.duckdb` has a record of its own."""
        records = checksums.read_records(self.files, "warehouse")
        self.known.update(records.names)
        for name, problem in self._contents([n for n in records.files if n in self.listing], records.files):
            if problem:
                self.damage("corrupt", name, problem, "warehouse")
        pages = {n: e for n, e in self.listing.items() if n.startswith("reports/") and n.endswith(".html")}
        self.known.update(pages)
        copies = {
            n.split("/")[2]: n for n in self.known if n.startswith("blobs/reports/") and n.endswith("/report.html")
        }
        for name in pages:
            blob = copies.get(name.removeprefix("reports/").removesuffix(".html"))
            if blob in self.listing and not self.quick and self.files.read(name) != self.files.read(str(blob)):
                self.damage("corrupt", name, f"differs from {blob}", "report")

    def _orphans(self) -> None:
        older = named_blobs(self.files, self.listing)
        for name, entry in self.listing.items():
            if name not in self.known and name not in older and not name.startswith(("locks/", "quarantine/")):
                self.found.orphans.append(entry)

    def _contents(
        self, names: Sequence[str], sums: Mapping[str, Checksum], also: Check | None = None
    ) -> Iterator[tuple[str, str | None]]:
        """`check_contents` with progress; nothing is read if only sizes are asked for."""
        if self.quick:
            yield from ((name, None) for name in names)
            return
        for name, problem in check_contents(self.files, names, sums, also):
            self.found.checked += 1
            self.found.bytes += self.listing[name].bytes
            self._progress(min(round(self.found.bytes / 1e6), self._progress.total))
            yield name, problem
