"""A blob tells which rows it belongs to, so that its index rows can be made again when they are lost.

The rows (without uri, size and SHA-256, which the file itself has) are JSON in the metadata of the safetensors header.
"""

import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from mech_pipeline.store.blobs import named_sha256
from mech_pipeline.store.files.interface import Entry, Files
from mech_pipeline.store.rows import content_version
from mech_pipeline.store.store import Store
from mech_pipeline.store.tables.all import Table

_KEY = "mech"
_BLOB = ("uri", "bytes", "sha256")


def registration(table: str, rows: Mapping[str, Sequence[Any]]) -> dict[str, str]:
    """Metadata for `safetensors.save`: the rows that will name this file."""
    return {_KEY: json.dumps({"table": table, "rows": {k: list(v) for k, v in rows.items() if k not in _BLOB}})}


def read_registration(content: bytes) -> tuple[str, dict[str, list[Any]]] | None:
    """(table, columns) that a safetensors file names; none if it names none, or is not such a file.

    The header is 8 bytes of length and JSON: https://github.com/huggingface/safetensors, "Format".
    """
    try:
        (length,) = struct.unpack("<Q", content[:8])
        described = json.loads(json.loads(content[8 : 8 + length])["__metadata__"][_KEY])
        return str(described["table"]), dict(described["rows"])
    except (struct.error, ValueError, KeyError, TypeError):
        return None


def register_again(store: Store, table: Table) -> int:
    """Index rows of whole blobs, for cells that have lost theirs; the newest blob of a cell counts.

    Returns:
        how many blobs were registered.
    """
    keys = ", ".join(table.keys)
    with store.reading(table.name) as connection:
        stored = connection.execute(f"select uri, {keys} from {table.name}").fetchall()
    named, present = {row[0] for row in stored}, {row[1:] for row in stored}
    count = 0
    for entry in sorted(store.files.entries(f"blobs/{table.name}"), key=lambda entry: -entry.modified):
        if entry.name in named or (rows := _rows_of(store.files, entry, table)) is None:
            continue
        cells = set(zip(*(rows[key].to_pylist() for key in table.keys), strict=True))
        if not present & cells:
            cell = ("run", "step", *([table.item] if table.item else []))
            store.write(table.name, rows, replace={key: sorted(set(rows[key].to_pylist())) for key in cell})
            present |= cells
            count += 1
    return count


def _rows_of(files: Files, entry: Entry, table: Table) -> pa.Table | None:
    """The rows that a blob carries, completed; none if it carries none or is not whole."""
    content = files.read(entry.name)
    sha256 = hashlib.sha256(content).hexdigest()
    described = read_registration(content)
    if described is None or described[0] != table.name or not sha256.startswith(named_sha256(entry.name) or "-"):
        return None
    columns = described[1]
    count = len(columns["run"])
    columns |= {"uri": [entry.name] * count, "bytes": [entry.bytes] * count, "sha256": [sha256] * count}
    if "data_version" not in columns:
        columns["data_version"] = _data_versions(table, columns)
    empty = {column.name: [column.default] * count for column in table.columns if column.nullable}  # of older files
    described_fully = empty | columns
    return pa.table({field.name: described_fully[field.name] for field in table.schema}, schema=table.schema)


def _data_versions(table: Table, columns: dict[str, list[Any]]) -> list[str]:
    items = columns[str(table.item)]
    versions = {}
    for item in dict.fromkeys(items):
        places = [i for i, value in enumerate(items) if value == item]
        part = {c.name: [columns[c.name][i] for i in places] for c in table.columns if c.name in columns}
        versions[item] = content_version(table, part)
    return [versions[item] for item in items]
