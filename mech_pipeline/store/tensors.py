"""Safetensors files as arrays mapped into memory: opening one reads its header, using it reads what is used.

Format: 8 bytes of header length, the header as JSON, the bytes (https://github.com/huggingface/safetensors, "Format").
"""

import json
import struct
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_TYPES = {"U8": "<u1", "U16": "<u2", "U32": "<u4", "U64": "<u8", "I32": "<i4", "I64": "<i8", "F32": "<f4", "F64": "<f8"}

Opened = BufferedReader | BytesIO


def mapped_arrays(path: Path) -> dict[str, NDArray]:
    """All tensors of a file, read-only, by name."""
    with path.open("rb") as file:
        length, header = _header(file)
    content = np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))[8 + length :]
    return {
        name: content[slice(*entry["data_offsets"])].view(_TYPES[entry["dtype"]]).reshape(entry["shape"])
        for name, entry in header.items()
    }


def tensor_shapes(file: Opened) -> dict[str, list[int]]:
    """Shapes of the tensors in a file by name; reads the header alone."""
    return {name: entry["shape"] for name, entry in _header(file)[1].items()}


def _header(file: Opened) -> tuple[int, dict[str, Any]]:
    """Its length, and what it says of each tensor."""
    (length,) = struct.unpack("<Q", file.read(8))
    header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return length, header
