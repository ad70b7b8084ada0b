"""Which blobs anything may still need: those named by a row of any data file that is still there.

Data files of older versions count until they are vacuumed, so whatever version can be read, its blobs can be read too.
"""

import re
from collections.abc import Iterable
from contextlib import suppress

import pyarrow as pa

from mech_pipeline.store import delta
from mech_pipeline.store.care.contents import parquet_rows
from mech_pipeline.store.files.interface import Files
from mech_pipeline.store.tables.all import TABLES

_TEMPORARY = re.compile(
    r"\.tmp-\d+-[0-9a-f]+$|/_delta_log/.*(\.tmp|\.json#\d+)$|^\.warehouse-\d+-[0-9a-f]+\.duckdb|^\.compact-"
)


def named_blobs(files: Files, listing: Iterable[str]) -> set[str]:
    """The uris in all data files, live or not, of the tables that index blobs; unreadable files name nothing."""
    tables = tuple(f"{delta.folder(name)}/" for name, table in TABLES.items() if table.has_blobs)
    found: set[str] = set()
    for name in listing:
        if name.startswith(tables) and name.endswith(".parquet") and "/_delta_log/" not in name:
            with suppress(OSError, KeyError, ValueError, pa.ArrowException):  # ValueError: a name that is no UTF-8
                found.update(parquet_rows(files.read(name), ["uri"])["uri"].unique().to_pylist())
    return found


def is_temporary(name: str) -> bool:
    """Whether a file is the unfinished work of a writer."""
    return _TEMPORARY.search(name) is not None
