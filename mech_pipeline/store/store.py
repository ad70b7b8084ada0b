"""The store: one root folder with Delta tables, blobs and locks.

A write replaces exactly the (run, step, item) cells it names, in one Delta commit: readers see the old rows or
the new ones, never a mixture, and a killed writer leaves the old ones. Rows carry the fingerprint of what they
were made from, so "is this up to date?" is a lookup, and the answer cannot disagree with the data.
"""

import errno
import fcntl
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.writer.properties import ColumnProperties

from mech_pipeline.errors import MechError
from mech_pipeline.store import blobs
from mech_pipeline.store.blobs import Blob
from mech_pipeline.store.tables import TABLES, Table

LAYOUT_VERSION = "1"
_WRITE_ATTEMPTS = 5


class Store:
    """A folder that keeps everything. Opening it creates nothing but the folder and its layout mark.

    Args:
        root: local folder.
    """

    def __init__(self, root: Path | str) -> None:
        if "://" in str(root):
            raise MechError(f"store root {root} is not a local folder", "set MECH_STORE to a folder")
        self.root = Path(root).absolute()
        with readable_disk_errors(self.root):
            mark = self.root / "store.layout"
            if mark.is_file():
                found = mark.read_text().strip()
                if found != LAYOUT_VERSION:
                    raise MechError(
                        f"store {self.root} has layout {found}, this program reads layout {LAYOUT_VERSION}",
                        "install the mech-pipeline version that wrote it, or name another store",
                    )
            else:
                self.root.mkdir(parents=True, exist_ok=True)
                blobs.write_whole(mark, LAYOUT_VERSION.encode())

    def table_path(self, name: str) -> str:
        """Folder of a Delta table."""
        return str(self.root / "tables" / name)

    def write(
        self,
        name: str,
        rows: Mapping[str, Any] | pa.Table,
        *,
        replace: Mapping[str, Sequence[Any]],
    ) -> int:
        """Replaces the cells named by `replace` with `rows`, in one commit. Returns the number of rows written.

        Args:
            rows: columns of the table; checked against its description before anything is touched.
            replace: for each key column, the values whose rows are replaced; rows outside are refused.
        """
        table = TABLES[name]
        checked = check_rows(table, rows)
        for column, values in replace.items():
            if outside := set(checked[column].unique().to_pylist()) - set(values):
                raise ValueError(
                    f"table {name}: rows with {column} {sorted(outside)[:5]} lie outside the cells to be replaced"
                )
        predicate = " and ".join(f"{column} in ({_literals(values)})" for column, values in replace.items())
        with readable_disk_errors(self.root):
            self._create(table)
            for attempt in range(_WRITE_ATTEMPTS):
                try:
                    write_deltalake(
                        self.table_path(name),
                        checked,
                        mode="overwrite",
                        predicate=predicate,
                        writer_properties=_writer_properties(table),
                        commit_properties=CommitProperties(max_commit_retries=30),
                    )
                    break
                except CommitFailedError:
                    if attempt + 1 == _WRITE_ATTEMPTS:
                        raise
        return checked.num_rows

    def insert_new(self, name: str, rows: Mapping[str, Any] | pa.Table) -> None:
        """Adds the rows whose keys are not there yet; what is there stays as it is."""
        table = TABLES[name]
        checked = check_rows(table, rows)
        match = " and ".join(f"old.{key} = new.{key}" for key in table.keys)
        with readable_disk_errors(self.root):
            self._create(table)
            for attempt in range(_WRITE_ATTEMPTS):
                try:
                    merger = DeltaTable(self.table_path(name)).merge(
                        checked, match, source_alias="new", target_alias="old"
                    )
                    merger.when_not_matched_insert_all().execute()
                    return
                except CommitFailedError:
                    if attempt + 1 == _WRITE_ATTEMPTS:
                        raise

    def _create(self, table: Table) -> None:
        if not (Path(self.table_path(table.name)) / "_delta_log").is_dir():
            DeltaTable.create(
                self.table_path(table.name),
                table.schema,
                mode="ignore",
                partition_by=["run"] if table.per_run else None,
                description=table.meaning,
            )

    def put_blob(self, folder: str, name: str, content: bytes, *, content_addressed: bool = False) -> Blob:
        """Stores one immutable file; see `blobs.put_blob`."""
        with readable_disk_errors(self.root):
            return blobs.put_blob(self.root, folder, name, content, content_addressed=content_addressed)

    def get_blob(self, blob: Blob, what: str, next_step: str) -> bytes:
        """Reads one file, checked; see `blobs.get_blob`."""
        return blobs.get_blob(self.root, blob, what, next_step)

    @contextmanager
    def lock(self, name: str, doing: str) -> Iterator[None]:
        """Holds a named lock while the block runs; the system frees it when the process dies, however it dies.

        Raises:
            MechError: another process holds it.
        """
        path = self.root / "locks" / f"{name}.lock"
        with readable_disk_errors(self.root):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("a+")
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                holder = file.read().strip() or "another process"
                raise MechError(
                    f"cannot {doing}: {holder} is writing it", "wait for it, or stop it, and run again"
                ) from error
            file.truncate(0)
            file.write(f"process {os.getpid()}")
            file.flush()
            yield


def check_rows(table: Table, rows: Mapping[str, Any] | pa.Table) -> pa.Table:
    """The rows as an Arrow table of exactly the described columns, sorted.

    Raises:
        ValueError: empty, missing or unknown columns, wrong types, nulls, numbers that are not finite, repeated keys.
    """
    schema = table.schema
    given = set(rows.column_names if isinstance(rows, pa.Table) else rows)
    if given != set(schema.names):
        raise ValueError(f"table {table.name}: columns {sorted(given ^ set(schema.names))} are missing or unknown")
    if isinstance(rows, pa.Table):
        checked = rows.select(schema.names).cast(schema)
    else:
        checked = pa.table({name: rows[name] for name in schema.names}, schema=schema)
    if checked.num_rows == 0:
        raise ValueError(f"table {table.name}: refusing to write no rows")
    for field in schema:
        column = checked[field.name]
        if not field.nullable and column.null_count:
            raise ValueError(f"table {table.name}: column {field.name} has {column.null_count} empty values")
        if pa.types.is_floating(field.type) and not pc.all(pc.is_finite(column)).as_py():
            raise ValueError(f"table {table.name}: column {field.name} has values that are not finite")
    distinct = checked.group_by(list(table.keys)).aggregate([]).num_rows
    if distinct != checked.num_rows:
        raise ValueError(f"table {table.name}: {checked.num_rows - distinct} rows repeat a key {table.keys}")
    order = table.sort or tuple((key, "ascending") for key in table.keys)
    return checked.sort_by(list(order))


def content_version(table: Table, columns: Mapping[str, Any]) -> str:
    """SHA-256 of rows without their provenance: equal rows, in any order, have equal versions."""
    names = [column.name for column in table.columns]
    schema = pa.schema([table.schema.field(name) for name in names])
    rows = pa.table({name: columns[name] for name in names}, schema=schema)
    rows = rows.sort_by([(key, "ascending") for key in table.keys]).combine_chunks()
    digest = hashlib.sha256()
    for name in names:
        digest.update(name.encode())
        for value in rows[name].chunks:
            if pa.types.is_string(value.type):
                encoded = value.dictionary_encode()
                digest.update(repr(encoded.dictionary.to_pylist()).encode())
                value = encoded.indices
            elif pa.types.is_boolean(value.type):
                value = value.cast(pa.int8())
            if value.null_count:
                digest.update(repr(value.is_null().to_pylist()).encode())
            digest.update(value.fill_null(0).to_numpy(zero_copy_only=False).tobytes())
    return digest.hexdigest()


@contextmanager
def readable_disk_errors(root: Path) -> Iterator[None]:
    """Turns "no space left" and "permission denied", from wherever they come, into a sentence with a next step."""
    try:
        yield
    except (OSError, DeltaError) as error:
        code, text = getattr(error, "errno", None), str(error)
        if code == errno.ENOSPC or "No space left on device" in text or "StorageFull" in text:
            raise MechError(
                f"the disk of {root} is full; what was stored before is whole",
                "free space and run the same command again",
            ) from error
        if code in (errno.EACCES, errno.EROFS) or "Permission denied" in text or "Read-only file system" in text:
            raise MechError(f"store {root} cannot be written", "check its permissions, or set MECH_STORE") from error
        raise


def _literals(values: Sequence[Any]) -> str:
    return ", ".join(str(v) if isinstance(v, int) else "'" + str(v).replace("'", "''") + "'" for v in values)


def _writer_properties(table: Table) -> WriterProperties:
    """zstd, and byte-stream-split for values: a third of the bytes of the defaults."""
    split = ColumnProperties(encoding="BYTE_STREAM_SPLIT", dictionary_enabled=False)
    values = [c.name for c in table.columns if c.type.startswith("float")]
    return WriterProperties(
        compression="ZSTD",
        compression_level=3,
        max_row_group_size=122_880,
        column_properties=dict.fromkeys(values, split) or None,
    )
