"""Reading files through, many at a time, and telling what is wrong with their content."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq

from mech_pipeline.store.checksums import Checksum, wrong_size
from mech_pipeline.store.delta import DataFile
from mech_pipeline.store.files.interface import Files
from mech_pipeline.store.rows import value_faults
from mech_pipeline.store.tables.all import Table

Check = Callable[[str, bytes], str | None]
GONE = "is gone since it was listed"


def check_contents(
    files: Files, names: Sequence[str], sums: Mapping[str, Checksum], also: Check | None = None
) -> Iterator[tuple[str, str | None]]:
    """(name, what is wrong or none) in the order of the names; every file is read once.

    Args:
        sums: what the files should be; files without checksum pass.
        also: a further look at a content whose checksum is right.
    """

    def problem_of(name: str) -> str | None:
        try:
            content = files.read(name)
        except FileNotFoundError:
            return GONE
        except OSError as error:
            return f"cannot be read: {error}"
        return _wrong_sum(content, sums.get(name)) or (also(name, content) if also else None)

    with ThreadPoolExecutor(files.parallel) as pool:
        yield from zip(names, pool.map(problem_of, names), strict=True)


def _wrong_sum(content: bytes, expected: Checksum | None) -> str | None:
    if expected is None:
        return None
    if wrong := wrong_size(len(content), expected):
        return wrong
    found = hashlib.sha256(content).hexdigest()
    return None if found == expected.sha256 else f"SHA-256 is {found[:12]}…, {expected.sha256[:12]}… was written"


def log_faults(name: str, content: bytes) -> str | None:
    """A file of a Delta log must at least parse."""
    try:
        if name.endswith(".parquet"):
            parquet_rows(content)
        else:
            [json.loads(line) for line in content.splitlines() if line]
    except (ValueError, OSError, pa.ArrowException) as error:
        return f"cannot be read: {error}"
    return None


def parquet_rows(content: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of a Parquet file, read in the thread that calls.

    `pyarrow.parquet.read_table` scans in threads of its own, which may still hold `content` when the interpreter ends;
    letting go of it then aborts the process (seen in one of ten `mech verify` on a busy machine).
    """
    return pq.ParquetFile(pa.BufferReader(content)).read(columns=columns, use_threads=False)


def row_faults(table: Table, file: DataFile, content: bytes) -> str | None:
    """Rows of one data file against the table's description."""
    try:
        reader = pq.ParquetFile(pa.BufferReader(content))
        names = [name for name in reader.schema_arrow.names if name in table.schema.names]
        for group in range(reader.num_row_groups):
            rows = reader.read_row_group(group, columns=names, use_threads=False)
            for column in table.schema:
                if column.name in file.partition or (column.name not in names and column.nullable):
                    empty = file.partition.get(column.name)
                    rows = rows.append_column(column, pa.array([empty] * len(rows), column.type))
            if faults := value_faults(table, rows.select(table.schema.names).cast(table.schema)):
                return faults[0]
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        return f"cannot be read: {' '.join(str(error).split())[:200]}"
    return None
