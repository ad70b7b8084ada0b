"""Fingerprints: SHA-256 of canonical JSON, so that "the same" can be decided by comparing 64 characters.

Canonical means: keys sorted, no white space, UTF-8, finite numbers only. What cannot be written that way is
refused, because a fingerprint that depends on `repr` would change between Python versions.
"""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

from pydantic import BaseModel


def canonical_json(value: Any) -> str:
    """The one JSON text for a value.

    Raises:
        TypeError: the value holds something JSON has no canonical form for (sets, bytes, objects).
        ValueError: a number is not finite.
    """
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def fingerprint(*parts: Any) -> str:
    """64 hex characters that are equal exactly when all parts are equal."""
    return hashlib.sha256(canonical_json(list(parts)).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file of any size."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return _plain(value.model_dump(mode="python"))
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise TypeError(f"a fingerprint needs text keys, got {list(value)!r}")
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"a fingerprint needs finite numbers, got {value}")
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"a fingerprint cannot be made of a {type(value).__name__}: {value!r}")
