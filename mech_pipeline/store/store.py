"""The store: one root, a folder or `s3://bucket/prefix`, with Delta tables, blobs, checksums and locks.

A write replaces exactly the (run, step, item) cells it names, in one Delta commit: readers see the old rows or
the new ones, never a mixture, and a killed writer leaves the old ones. Rows carry the fingerprint of what they
were made from, so "is this up to date?" is a lookup, and the answer cannot disagree with the data. Every commit
records who made it: Dagster run, code version, git commit, and the SHA-256 of the rows it was given.
"""

import random
import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Schema, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError
from deltalake.writer.properties import ColumnProperties

from mech_pipeline.provenance import git_commit
from mech_pipeline.store import blobs, checked, commits, delta
from mech_pipeline.store.blobs import Blob
from mech_pipeline.store.files.interface import readable_storage_errors
from mech_pipeline.store.files.open import open_files
from mech_pipeline.store.files.roots import check_writable
from mech_pipeline.store.layout import open_layout
from mech_pipeline.store.reading import reading
from mech_pipeline.store.rows import check_rows, rows_sha256
from mech_pipeline.store.tables.all import TABLES, Table

_ATTEMPTS = 30
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 1.0  # seconds
ROW_GROUP, PAGE_BYTES, DICTIONARY_BYTES = 1 << 20, 8 << 20, 16 << 20


@dataclass(frozen=True)
class Commit:
    """What one write did.

    Attributes:
        version: Delta version of the table, readable again with `mech sql --at` until it is vacuumed.
        content: SHA-256 of the rows written.
    """

    table: str
    version: int
    rows: int
    content: str


class Store:
    """Keeps everything. Opening it creates nothing but the root and its layout mark.

    Args:
        root: local folder, or `s3://bucket/prefix` (endpoint, region, credentials from the AWS environment variables).
        dagster_run: recorded with every commit.

    Attributes:
        committed: the last commit to each table through this object.
    """

    def __init__(self, root: Path | str, dagster_run: str = "") -> None:
        self.files = open_files(root)
        self.root = self.files.root
        self._dagster_run = dagster_run
        self.committed: dict[str, Commit] = {}
        check_writable(self.root)
        with readable_storage_errors(self.root):
            open_layout(self.files)

    def write(
        self,
        name: str,
        rows: Mapping[str, Any] | pa.Table,
        *,
        replace: Mapping[str, Sequence[Any]],
        code_version: str = "",
    ) -> Commit:
        """Replaces the cells named by `replace` with `rows`, in one commit.

        Args:
            rows: columns of the table; checked against its description before anything is touched.
            replace: for each key column, the values whose rows are replaced; rows outside are refused.
            code_version: version of the code that computed the rows, recorded with the commit.

        Raises:
            ValueError: the rows break the table's description.
            MechError: the store cannot be written; nothing has changed.
        """
        table = TABLES[name]
        checked = check_rows(table, rows)
        for column, values in replace.items():
            if outside := set(checked[column].unique().to_pylist()) - set(values):
                raise ValueError(
                    f"table {name}: rows with {column} {sorted(outside)[:5]} lie outside the cells to be replaced"
                )
        predicate = " and ".join(_among(table, column, values) for column, values in replace.items())

        def overwrite(opened: DeltaTable, properties: CommitProperties) -> None:
            write_deltalake(
                opened,
                checked,
                mode="overwrite",
                predicate=predicate,
                writer_properties=writer_properties(table),
                commit_properties=properties,
                post_commithook_properties=delta.NO_HOOKS,
                target_file_size=1 << 30,
            )

        return self._commit(table, checked, code_version, overwrite)

    def insert_new(self, name: str, rows: Mapping[str, Any] | pa.Table, *, code_version: str = "") -> Commit:
        """Adds the rows whose keys are not there yet; what is there stays as it is."""
        table = TABLES[name]
        checked = check_rows(table, rows)
        match = " and ".join(f"old.{key} = new.{key}" for key in table.keys)

        def merge(opened: DeltaTable, properties: CommitProperties) -> None:
            merger = opened.merge(
                checked,
                match,
                source_alias="new",
                target_alias="old",
                writer_properties=writer_properties(table),
                commit_properties=properties,
                post_commithook_properties=delta.NO_HOOKS,
            )
            merger.when_not_matched_insert_all().execute()

        return self._commit(table, checked, code_version, merge)

    def delete(self, name: str, where: str, *, code_version: str = "") -> None:
        """Removes the rows that match a Delta predicate."""
        table = TABLES[name]

        def remove(opened: DeltaTable, properties: CommitProperties) -> None:
            opened.delete(where, commit_properties=properties, post_commithook_properties=delta.NO_HOOKS)

        self._commit(table, None, code_version, remove)

    def _commit(
        self,
        table: Table,
        rows: pa.Table | None,
        code_version: str,
        act: Callable[[DeltaTable, CommitProperties], None],
    ) -> Commit:
        """Runs one Delta operation until no other writer is in its way, then records checksums."""
        mark, content = uuid.uuid4().hex, "" if rows is None else rows_sha256(rows)
        properties = self.commit_properties(mark, content, code_version)
        with readable_storage_errors(self.root):
            for attempt in range(_ATTEMPTS):
                opened = self._open(table)
                before = opened.version()
                try:
                    act(opened, properties)
                    break
                except CommitFailedError:
                    if attempt + 1 == _ATTEMPTS:
                        raise
                    time.sleep(random.random() * min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**attempt))
            commits.record(self.files, table.name, opened, mark, before)
        made = Commit(table.name, opened.version(), 0 if rows is None else rows.num_rows, content)
        self.committed[table.name] = made
        return made

    def commit_properties(
        self, mark: str, content: str, code_version: str, *, operation: str = "", retries: int = _ATTEMPTS
    ) -> CommitProperties:
        """What a commit records about itself; `mark` finds it again in the log."""
        recorded = {
            "mech.commit": mark,
            "mech.content": content,
            "mech.code_version": code_version,
            "mech.git_commit": git_commit(),
            "mech.dagster_run": self._dagster_run,
        }
        if operation:
            recorded["mech.operation"] = operation
        return CommitProperties(custom_metadata=recorded, max_commit_retries=retries)

    def _open(self, table: Table) -> DeltaTable:
        """The table, created if need be, with every column that its description has.

        A commit on top of a damaged log would make the damage last: what is lost would be thought replaced.
        """
        url = self.files.url(delta.folder(table.name))
        if checked.newest_version(self.files, table.name) < 0:
            # Of several writers that come first at once, one creates the table; the others find it.
            with suppress(CommitFailedError):
                DeltaTable.create(
                    url,
                    table.schema,
                    mode="ignore",
                    partition_by=["run"] if table.per_run else None,
                    description=table.meaning,
                    storage_options=self.files.delta_options,
                )
            commits.record_new(self.files, table.name)
        opened = DeltaTable(url, storage_options=self.files.delta_options)
        if missing := delta.check_columns(table, pa.schema(opened.schema().to_arrow())):
            fields = Schema.from_arrow(pa.schema([table.schema.field(name) for name in missing])).fields
            with suppress(CommitFailedError):  # another writer adds them at the same moment
                opened.alter.add_columns(list(fields))
            commits.record_new(self.files, table.name)
            opened = DeltaTable(url, storage_options=self.files.delta_options)
        return opened

    def reading(
        self, *tables: str, of: Collection[str] | None = None
    ) -> AbstractContextManager[duckdb.DuckDBPyConnection]:
        """One consistent cut through these tables, a view each; all tables if none is named. See `reading.shared.reading`.

        Args:
            of: runs; the question is about their rows alone, and may see no others.
        """
        return reading(self.root, tables or TABLES, of)

    def put_blob(self, folder: str, name: str, content: bytes) -> Blob:
        """Stores one immutable file; see `blobs.put_blob`."""
        return blobs.put_blob(self.files, folder, name, content)

    def get_blob(self, blob: Blob, what: str, next_step: str) -> bytes:
        """Reads one file, checked; see `blobs.get_blob`."""
        return blobs.get_blob(self.files, blob, what, next_step)

    def lock(self, name: str, doing: str) -> AbstractContextManager[None]:
        """Holds a named lock while the block runs; see `Files.lock`."""
        return self.files.lock(name, doing)


def writer_properties(table: Table) -> WriterProperties:
    """zstd, values byte-stream-split, large row groups and pages.

    Example ids repeat in the same order for every target. In large pages zstd finds the repetition: 3.9 bytes a row
    of `influence` instead of 8.3 with row groups of 122,880 rows and pages of 20,000 (benchmarks/store.py).
    """
    split = ColumnProperties(encoding="BYTE_STREAM_SPLIT", dictionary_enabled=False)
    values = [c.name for c in table.columns if c.type.startswith("float")]
    return WriterProperties(
        compression="ZSTD",
        compression_level=3,
        max_row_group_size=ROW_GROUP,
        data_page_row_count_limit=ROW_GROUP,
        data_page_size_limit=PAGE_BYTES,
        dictionary_page_size_limit=DICTIONARY_BYTES,
        column_properties=dict.fromkeys(values, split) or None,
    )


def _among(table: Table, column: str, values: Sequence[Any]) -> str:
    """Delta predicate for rows of these cells; rows that are older than the column have its default."""
    found = f"{column} in ({_literals(values)})"
    default = next((c.default for c in table.columns if c.name == column), None)
    return f"({found} or {column} is null)" if default is not None and default in values else found


def _literals(values: Sequence[Any]) -> str:
    return ", ".join(str(v) if isinstance(v, int) else "'" + str(v).replace("'", "''") + "'" for v in values)
