"""SHA-256 of every file of a table, kept beside the Delta log: `checksums/<table>/<version>.json`.

Each record belongs to one commit: its log file and the data files it added. The record ends with the SHA-256 of itself.
It is written right after the commit; a writer killed in between leaves a file without checksum, which `mech verify`
names and `--repair` records after reading the file through. `mech maintain` folds the records of a table into one.
Parquet files carry no usable checksum of their own: DuckDB and polars notice no flipped bit.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

from mech_pipeline.store.files.interface import Files

_COMMIT = re.compile(r"\d{20}\.json")
_WAREHOUSE = "warehouse"
"""Under this name lies the record of `warehouse.duckdb`, which is no table."""


@dataclass(frozen=True)
class Checksum:
    """Size and SHA-256 of a file."""

    bytes: int
    sha256: str


@dataclass
class Records:
    """What is known of a table.

    Attributes:
        files: by name under the store's root.
        damaged: records that are not what was written.
        names: the record files read.
    """

    files: dict[str, Checksum] = field(default_factory=dict)
    damaged: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)


def wrong_size(found: int, expected: Checksum | None) -> str | None:
    """What is wrong with a size in bytes; none of files without checksum."""
    if expected is None or found == expected.bytes:
        return None
    return f"{found} bytes, {expected.bytes} were written"


def checksum(content: bytes) -> Checksum:
    """Of a whole file."""
    return Checksum(len(content), hashlib.sha256(content).hexdigest())


def record(files: Files, table: str, version: int, sums: Mapping[str, Checksum], kind: str = "") -> None:
    """Writes the record of a commit (`kind` tells records of one version apart)."""
    body = json.dumps({name: [found.bytes, found.sha256] for name, found in sorted(sums.items())}).encode()
    digest = hashlib.sha256(body).hexdigest().encode()
    files.write(f"{folder(table)}/{version:020d}{kind}.json", body + b"\n" + digest + b"\n")


def read_records(files: Files, table: str) -> Records:
    """All records of a table."""
    found = Records()
    for name, content in _read_all(files, table).items():
        found.names.append(name)
        if (sums := parsed(name, table, content)) is None:
            found.damaged.append(name)
        else:
            found.files.update(sums)
    return found


def _read_all(files: Files, table: str) -> dict[str, bytes]:
    while True:
        names = record_names(files, table)
        contents = read_each(files, names)
        if len(contents) == len(names):  # else a maintenance that runs now has folded one into a new record
            return contents


def record_names(files: Files, table: str) -> list[str]:
    """The files of a table's records, in order of version."""
    place = folder(table)
    return [f"{place}/{short}" for short in files.names(place) if ".tmp-" not in short]


def read_each(files: Files, names: Sequence[str]) -> dict[str, bytes]:
    """Contents of small files, without those that are gone."""

    def content(name: str) -> bytes | None:
        with suppress(FileNotFoundError):
            return files.read(name)
        return None

    if files.local_path("") is not None:  # read faster than a thread starts
        found = [content(name) for name in names]
    else:
        with ThreadPoolExecutor(files.parallel) as pool:
            found = list(pool.map(content, names))
    return {name: each for name, each in zip(names, found, strict=True) if each is not None}


def parsed(name: str, table: str, content: bytes) -> dict[str, Checksum] | None:
    """What a record says; none if it is not what was written: its own SHA-256 does not fit, or it is another commit's."""
    body, _, digest = content.rstrip(b"\n").rpartition(b"\n")
    if hashlib.sha256(body).hexdigest().encode() != digest or content != body + b"\n" + digest + b"\n":
        return None
    sums = {name: Checksum(*pair) for name, pair in json.loads(body).items()}
    of_commit = _COMMIT.fullmatch(name.rsplit("/", 1)[-1])
    if of_commit and table != _WAREHOUSE and f"tables/{table}/_delta_log/{of_commit[0]}" not in sums:
        return None
    return sums


def fold(files: Files, table: str, there: Callable[[], Iterable[str]]) -> int:
    """Replaces all records of a table by one over the files that are still there; returns how many there were.

    Records written meanwhile stay. Damaged records stay too, for `mech verify` to name.

    Args:
        there: lists the table's files. Called after the records were read: a file that a running writer has recorded
            by then is on disk, so the record of no commit is dropped.
    """
    found = read_records(files, table)
    whole = [name for name in found.names if name not in found.damaged]
    if len(whole) <= 1:
        return 0
    wanted, version = set(there()), max(map(version_of, whole))
    record(files, table, version, {n: c for n, c in found.files.items() if n in wanted}, kind=".folded")
    files.remove([name for name in whole if name != f"{folder(table)}/{version:020d}.folded.json"])
    return len(whole)


def newest_version(files: Files, table: str) -> int:
    """The newest version of a table that has a record, so was surely committed; -1 if there is none."""
    return max(map(version_of, record_names(files, table)), default=-1)


def version_of(name: str) -> int:
    """The version that a record belongs to; -1 of a file that is none."""
    digits = name.rsplit("/", 1)[-1][:20]
    return int(digits) if digits.isdigit() else -1


def folder(table: str) -> str:
    """Where the records of a table lie under the root."""
    return f"checksums/{table}"
