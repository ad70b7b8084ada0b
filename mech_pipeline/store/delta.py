"""Delta tables under a store's root: opening them, finding a commit in the log, which files are live.

The log is the public Delta protocol: `_delta_log/<version, 20 digits>.json`, one JSON object a line.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
from deltalake import DeltaTable, PostCommitHookProperties

from mech_pipeline.errors import MechError
from mech_pipeline.store.files.interface import Files, readable_storage_errors
from mech_pipeline.store.tables.all import Table

# Log checkpoints are made by us, where their checksum can be kept.
NO_HOOKS = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)


_newest_seen: dict[tuple[Files, str], int] = {}  # on S3 a listing costs a request for every thousand names


@dataclass(frozen=True)
class DataFile:
    """One Parquet file of a table.

    Attributes:
        name: under the store's root.
        partition: values of the partition columns.
        stats: Delta's statistics as far as the log has them: numRecords, minValues and maxValues of `step`, nullCount.
    """

    name: str
    bytes: int
    rows: int
    partition: dict[str, str]
    stats: dict[str, Any]

    def lacks(self, column: str) -> bool:
        """Whether the file was written before the column was added: its statistics do not know it."""
        counts = {name: count for name, count in self.stats.get("nullCount", {}).items() if count is not None}
        return bool(counts) and column not in counts and column not in self.partition


@dataclass(frozen=True)
class TableVersion:
    """One version of a table: its live files and its columns."""

    version: int
    committed: int
    """Milliseconds since 1970."""
    files: tuple[DataFile, ...]
    schema: pa.Schema


def folder(name: str) -> str:
    """Where a table lies under the root."""
    return f"tables/{name}"


def log_name(table: str, version: int) -> str:
    """The log file of a commit."""
    return f"{folder(table)}/_delta_log/{version:020d}.json"


def latest_version(files: Files, table: str) -> int:
    """The newest version of a table; -1 if it was never written."""
    known = _newest_seen.get((files, table), 0)
    found = _newest(files, table, after=f"{known - 1:020d}.z" if known else "")
    if found < known:  # the store was made anew
        found = _newest(files, table)
    _newest_seen[files, table] = found
    return found


def _newest(files: Files, table: str, after: str = "") -> int:
    names = files.names(f"{folder(table)}/_delta_log", after)
    return max((int(name[:20]) for name in names if _is_commit(name) or _is_checkpoint(name)), default=-1)


def log_of(files: Files, table: str, version: int) -> tuple[list[str], int]:
    """The log files that make a version: its last checkpoint, and the commits since; and the version of the checkpoint.

    The checkpoint's version is -1 if there is none: then all commits make it.

    Raises:
        MechError: what comes before was removed.
    """
    place = f"{folder(table)}/_delta_log"
    names = files.names(place)
    checkpoints = [int(name[:20]) for name in names if _is_checkpoint(name)]
    since = max((each for each in checkpoints if each <= version), default=-1)
    commits = [int(name[:20]) for name in names if _is_commit(name)]
    if since < 0 and checkpoints and min(commits, default=0) > 0:
        raise MechError(
            f"version {version} of table {table} can no longer be read: `mech maintain` removed its log",
            f"`mech history {table}` lists the versions that are left",
        )
    needed = list(range(since + 1, version + 1)) or [each for each in commits if each == version]
    checkpoint = [f"{place}/{since:020d}.checkpoint.parquet"] if since >= 0 else []
    return checkpoint + [log_name(table, each) for each in needed], since


def versions(files: Files, table: str) -> list[int]:
    """All versions whose log is there."""
    return [int(n.removesuffix(".json")) for n in files.names(f"{folder(table)}/_delta_log") if _is_commit(n)]


def _is_commit(name: str) -> bool:
    return len(name) == 25 and name.endswith(".json") and name[:20].isdigit()


def _is_checkpoint(name: str) -> bool:
    return name.endswith(".checkpoint.parquet") and name[:20].isdigit()


def open_table(files: Files, table: str, version: int | None = None) -> DeltaTable:
    """A table for writing or looking into."""
    with readable_storage_errors(files.root):
        return DeltaTable(files.url(folder(table)), version=version, storage_options=files.delta_options)


def commit_log(files: Files, table: str, version: int) -> list[dict[str, Any]]:
    """The actions of one commit.

    Raises:
        MechError: its log is damaged.
        FileNotFoundError: its log is gone.
    """
    content = files.read(log_name(table, version))
    with damage_in_words(table, version):
        return parsed_log(content)


def parsed_log(content: bytes) -> list[dict[str, Any]]:
    """The actions in a log file.

    Raises:
        ValueError: it is no log: not JSON, without an action, or with a line that is none.
    """
    actions = [json.loads(line) for line in content.splitlines() if line]
    if not actions or not all(isinstance(action, dict) for action in actions):
        raise ValueError("a line of its log is no action" if actions else "its log is empty")
    return actions


@contextmanager
def damage_in_words(table: str, version: int) -> Iterator[None]:
    """Whatever a damaged log makes of the readers of a log, said in a sentence."""
    try:
        yield
    except MechError:
        raise
    except Exception as error:
        raise MechError(
            f"table {table}, version {version}, cannot be read: {' '.join(str(error).split())[:300]}",
            "`mech verify --repair`; `mech history` tells which versions there are",
        ) from error


def commit_info(actions: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The `commitInfo` action: operation, time, and what was recorded with it."""
    return next((action["commitInfo"] for action in actions if "commitInfo" in action), {})


def added_files(table: str, actions: Sequence[dict[str, Any]]) -> list[DataFile]:
    """The files that a commit added."""
    return [_data_file(table, action["add"]) for action in actions if "add" in action]


def _data_file(table: str, add: dict[str, Any]) -> DataFile:
    stats = json.loads(add.get("stats") or "{}")
    name = f"{folder(table)}/{unquote(add['path'])}"
    return DataFile(name, add["size"], stats.get("numRecords", -1), add.get("partitionValues") or {}, stats)


def partition_of(name: str) -> dict[str, str]:
    """The values of the partition columns that a data file's name holds.

    >>> partition_of("tables/ledger/run=a.b.s0/part-0.parquet")
    {'run': 'a.b.s0'}
    """
    parts = [part.partition("=") for part in name.split("/") if "=" in part]
    return {key: unquote(value) for key, _, value in parts}


def table_version(files: Files, table: str, version: int) -> TableVersion:
    """The live files of one version; versions never change, so they are remembered.

    Raises:
        MechError: the log of that version is gone or damaged.
    """
    mark = files.info(log_name(table, version))
    return _table_version(files, table, version, mark.modified if mark else 0.0)  # a store may be made anew elsewhere


@lru_cache(maxsize=256)
def _table_version(files: Files, table: str, version: int, written: float) -> TableVersion:
    with damage_in_words(table, version):
        opened = open_table(files, table, version)
        actions = pa.RecordBatchReader.from_stream(opened.get_add_actions(flatten=True)).read_all()
        live = tuple(_live_files(table, actions))
        try:
            made = commit_info(commit_log(files, table, version))  # a fifth of the time of `history`
        except FileNotFoundError:  # only the log's checkpoint is left
            made = (opened.history(1) or [{}])[0]
        committed = int(made.get("timestamp", 0))
        return TableVersion(version, committed, live, pa.schema(opened.schema().to_arrow()))


def _live_files(table: str, actions: pa.Table) -> Iterator[DataFile]:
    """Files of a version, with those statistics that anyone asks for; column by column, as there may be thousands."""

    def columns(prefix: str, names: Iterable[str] | None = None) -> dict[str, list[Any]]:
        wanted = [name for name in actions.column_names if name.startswith(prefix)] if names is None else names
        return {n.removeprefix(prefix): actions[n].to_pylist() for n in wanted if n in actions.column_names}

    low, high = columns("min.", ["min.step"]), columns("max.", ["max.step"])
    partition, empty = columns("partition."), columns("null_count.")
    rows = actions["num_records"].to_pylist()
    for i, (path, size) in enumerate(zip(actions["path"].to_pylist(), actions["size_bytes"].to_pylist(), strict=True)):
        stats = {"numRecords": rows[i]}
        for name, values in (("minValues", low), ("maxValues", high), ("nullCount", empty)):
            stats[name] = {column: found[i] for column, found in values.items()}
        where = {column: found[i] for column, found in partition.items()}
        count = rows[i] if rows[i] is not None else -1
        yield DataFile(f"{folder(table)}/{unquote(path)}", size, count, where, stats)


def check_columns(table: Table, schema: pa.Schema) -> list[str]:
    """The columns that a stored table lacks and may lack (they are empty then).

    Raises:
        MechError: the table was written by a newer program, or an older one with other columns.
    """
    unknown = [name for name in schema.names if name not in table.schema.names]
    if unknown:
        raise MechError(
            f"table {table.name} has columns that this program does not know ({', '.join(unknown)}): "
            "a newer mech-pipeline wrote it",
            "install that version, or name another store",
        )
    missing = []
    for field in table.schema:
        if field.name not in schema.names:
            if not field.nullable:
                raise MechError(
                    f"table {table.name} lacks the column {field.name}: an older mech-pipeline wrote it",
                    f"`mech migrate`, or delete {folder(table.name)} of the store and `mech run` again",
                )
            missing.append(field.name)
        elif schema.field(field.name).type != field.type:
            raise MechError(
                f"table {table.name}: column {field.name} is {schema.field(field.name).type}, expected {field.type}: "
                "another version of mech-pipeline wrote it",
                "install that version, or name another store",
            )
    return missing
