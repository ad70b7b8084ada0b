"""A blob tells which rows it belongs to, so that its index rows can be made again when they are lost.

The rows (without uri, size and SHA-256, which the file itself has) are JSON in the metadata of the safetensors header.
"""

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

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
