"""After `verify`: damaged files are moved to `quarantine/` and taken out of their tables, whole blobs whose index rows
were lost are registered again, and what must be computed again is named. Nothing is deleted.

What is taken out is then missing for the pipeline: `mech run` finds it not current and makes it again, nothing else.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from mech_pipeline.store import checksums, delta
from mech_pipeline.store.care.findings import Finding, Verification
from mech_pipeline.store.care.registration import register_again
from mech_pipeline.store.files.interface import Files
from mech_pipeline.store.layout import check_mark, mark
from mech_pipeline.store.reading import reading
from mech_pipeline.store.reading.connection import quoted
from mech_pipeline.store.reading.warehouse import write_warehouse
from mech_pipeline.store.store import Store
from mech_pipeline.store.tables.all import TABLES, Table

ASSETS = {
    "runs": "run_spec",
    "examples": "tokens",
    "example_documents": "tokens",
    "token_shards": "tokens",
    "batches": "training_run",
    "checkpoints": "training_run",
    "training_metrics": "training_run",
    "circuit_curves": "circuits",
    "circuit_criteria": "circuits",
    "neuron_tokens": "neurons",
    "neuron_contexts": "neurons",
    "ledger_balance": "ledger",
    "removals": "retrainings",
    "ledger_tokens": "ledger",
    "influence_tokens": "influence",
    "sweeps": "influence",
    "sketches": "influence",
    "in_training": "training_run",
    "reports": "experiment_report",
}
"""The asset that makes a table, where it has another name."""


@dataclass
class Repair:
    """What was done.

    Attributes:
        lost: what must be made again: asset, run, steps.
    """

    lines: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


def repair_store(files: Files, found: Verification, emit: Callable[[str], None] = lambda line: None) -> Repair:
    """Repairs what `verify_store` found."""
    if check_mark(files):
        mark(files)
    return _Repairer(Store(files.root), found, emit).run()


class _Repairer:
    def __init__(self, store: Store, found: Verification, emit: Callable[[str], None]) -> None:
        self.store, self.files, self.found, self.emit = store, store.files, found, emit
        self.done = Repair()
        self.shrunk: set[str] = set()

    def run(self) -> Repair:
        by_role: dict[str, list[Finding]] = {}
        for finding in self.found.damage:
            by_role.setdefault(finding.role, []).append(finding)
        self._logs(by_role.get("log", []))
        self._data([f for f in by_role.get("data", []) if f.kind != "unrecorded" and f.table not in self.shrunk])
        for finding in by_role.get("older", []) + by_role.get("checksum", []):
            self._quarantine(finding.name)
        for finding in by_role.get("keys", []):
            self._repeated(TABLES[finding.table])
        self._blobs(by_role.get("blob", []))
        self._register()
        self._record([f for f in by_role.get("data", []) if f.kind == "unrecorded"], by_role.get("checksum", []))
        self._generated(by_role.get("report", []), by_role.get("warehouse", []))
        return self.done

    def _quarantine(self, name: str) -> None:
        if self.files.info(name) is not None:
            self.files.write(f"quarantine/{name}", self.files.read(name))
            self.files.remove([name])
            self.done.lines.append(f"moved {name} to quarantine/")

    def _lose(self, table: str, what: str) -> None:
        self.shrunk.add(table)
        line = f"{ASSETS.get(table, table)}: {what}"
        if line not in self.done.lost:
            self.done.lost.append(line)

    # tables

    def _logs(self, findings: list[Finding]) -> None:
        """A table whose state survives elsewhere (a whole log checkpoint, or all of the log) keeps it."""
        for name in dict.fromkeys(finding.table for finding in findings):
            bad = [finding.name for finding in findings if finding.table == name and finding.name != delta.folder(name)]
            for file in bad:
                if file.endswith((".parquet", "_last_checkpoint")):
                    self._quarantine(file)
            if any(finding.name == delta.folder(name) for finding in findings) or not self._reopen(name, bad):
                self._abandon(name)

    def _reopen(self, name: str, bad: list[str]) -> bool:
        """Whether the table can be opened without its damaged commits: its state is then summarised anew."""
        commits = [int(Path(file).stem) for file in bad if file.endswith(".json")]
        try:
            opened = delta.open_table(self.files, name)
            if not commits:
                return True
            if any(self.files.info(file.name) is None for file in _live(self.files, name)):
                return False
            self.store.checkpoint_log(name, opened)
            gone = [v for v in delta.versions(self.files, name) if v <= max(commits)]
            for version in gone:
                self._quarantine(delta.log_name(name, version))
            delta.open_table(self.files, name)
        except Exception as error:
            self.emit(f"table {name} cannot be opened: {' '.join(str(error).split())[:200]}")
            return False
        self.done.lines.append(f"table {name}: its state is kept, its older versions can no longer be read")
        return True

    def _abandon(self, name: str) -> None:
        for entry in list(self.files.entries(delta.folder(name))) + list(self.files.entries(f"checksums/{name}")):
            self.files.write(f"quarantine/{entry.name}", self.files.read(entry.name))
            self.files.remove([entry.name])
        self.done.lines.append(f"moved the table {name} to quarantine/: its log is beyond repair")
        self._lose(name, "everything")
        if name in ("examples", "example_documents"):
            self._forget_pools()

    def _data(self, findings: list[Finding]) -> None:
        for name in dict.fromkeys(finding.table for finding in findings):
            for finding in findings:
                if finding.table != name:
                    continue
                self._quarantine(finding.name)
                assert finding.file is not None, "findings about data know their file"
                self._lose(name, _rows_in_words(finding))
            delta.open_table(self.files, name).repair(post_commithook_properties=delta.NO_HOOKS)
            self.store.record_new(name)
            if name in ("examples", "example_documents"):
                self._forget_pools()

    def _forget_pools(self) -> None:
        """Rows of `examples` are written with the pool: without its row, the pool is made again, with equal content."""
        if delta.latest_version(self.files, "tokens") >= 0:
            self.store.delete("tokens", "artifact = 'pool'")

    def _repeated(self, table: Table) -> None:
        """Takes out whole cells in which a key repeats: which of the rows is right is not known."""
        keys = ", ".join(f'"{key}"' for key in table.keys)
        cell = [key for key in table.keys if key in ("run", "step")] or list(table.keys)
        with reading(self.store.root, [table.name]) as connection:
            sql = f"select distinct {', '.join(cell)} from {table.name} group by {keys} having count(*) > 1"
            cells = connection.execute(sql).fetchall()
        for values in cells:
            where = " and ".join(
                f"{key} = {value if isinstance(value, int) else quoted(value)}"
                for key, value in zip(cell, values, strict=True)
            )
            self.store.delete(table.name, where)
            self._lose(table.name, ", ".join(f"{key} {value}" for key, value in zip(cell, values, strict=True)))

    # blobs

    def _blobs(self, findings: list[Finding]) -> None:
        for finding in findings:
            if not finding.table or delta.latest_version(self.files, finding.table) < 0:
                self._quarantine(finding.name)  # its row is lost, or of an older version
                continue
            table = TABLES[finding.table]
            keys = [key for key in table.keys if key not in ("component",)]
            with reading(self.store.root, [table.name]) as connection:
                sql = f"select distinct {', '.join(keys)} from {table.name} where uri = ?"
                rows = connection.execute(sql, [finding.name]).fetchall()
            self._quarantine(finding.name)
            self.store.delete(table.name, f"uri = {quoted(finding.name)}")
            for row in rows:
                self._lose(table.name, ", ".join(f"{key} {value}" for key, value in zip(keys, row, strict=True)))
        self.shrunk -= {finding.table for finding in findings} - {
            f.table for f in self.found.damage if f.role in ("data", "log", "keys")
        }

    def _register(self) -> None:
        for name in sorted(self.shrunk):
            if TABLES[name].has_blobs and (count := register_again(self.store, TABLES[name])):
                self.done.lines.append(f"registered {count} whole files of {name} again: these need not be made again")

    # records and generated files

    def _record(self, unrecorded: list[Finding], damaged: list[Finding]) -> None:
        for name in dict.fromkeys(f.table for f in unrecorded + damaged):
            known = checksums.read_records(self.files, name).files
            logs = [delta.log_name(name, version) for version in delta.versions(self.files, name)]
            live = [file.name for file in _live(self.files, name)]
            missing = [n for n in logs + live if n not in known and self.files.info(n) is not None]
            if missing:
                version = delta.latest_version(self.files, name)
                sums = {n: checksums.checksum(self.files.read(n)) for n in missing}
                checksums.record(self.files, name, version, sums, kind=".repaired")
                self.done.lines.append(f"recorded the checksums of {len(missing)} files of {name} that read well")

    def _generated(self, reports: list[Finding], warehouse: list[Finding]) -> None:
        for finding in reports:
            experiment = Path(finding.name).stem
            with reading(self.store.root, ["reports"]) as connection:
                sql = "select uri from reports where experiment = ? and artifact = 'report.html'"
                rows = connection.execute(sql, [experiment]).fetchall()
            if rows:
                self.files.write(finding.name, self.files.read(rows[0][0]))
                self.done.lines.append(f"wrote {finding.name} again")
        if warehouse or (self.shrunk and self.files.info("warehouse.duckdb")):
            self.done.lines.append(f"wrote {write_warehouse(self.store.root)} again")


def _live(files: Files, name: str) -> tuple[delta.DataFile, ...]:
    version = delta.latest_version(files, name)
    return delta.table_version(files, name, version).files if version >= 0 else ()


def _rows_in_words(finding: Finding) -> str:
    return finding.problem.rsplit("; ", 1)[-1].removesuffix(" is gone")
