"""One consistent cut through all tables: the versions that were current at one moment, now or in the past.

Delta commits one table at a time. The cut is found by looking at all newest version numbers twice: where nothing moved
in between, all of them were current at once. Under constant writing from many processes that may never happen; then the
last look stands, taken from the tables that are made last to those they are made from (a report before its runs), so that
whatever a row refers to is in the cut as well.
"""

from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime

from mech_pipeline.errors import MechError, unknown
from mech_pipeline.store import delta
from mech_pipeline.store.checked import Recorded, check_data, check_log, check_newest, recorded
from mech_pipeline.store.delta import TableVersion
from mech_pipeline.store.files.interface import Files
from mech_pipeline.store.tables.all import TABLES, Table

_LOOKS, _THREADS = 20, 8


@dataclass(frozen=True)
class Snapshot:
    """Versions of tables by name; none: never written.

    Attributes:
        recorded: what was recorded of the tables before their logs were listed.
    """

    tables: Mapping[str, TableVersion | None]
    recorded: Mapping[str, Recorded] = field(default_factory=dict)

    def of(self, runs: Collection[str]) -> "Snapshot":
        """The same cut, of tables that are kept run by run the files of these runs alone."""
        return replace(self, tables={name: _of(found, runs, TABLES[name]) for name, found in self.tables.items()})

    def check_files(self) -> None:
        """Looks at all data files; see `checked.check_data`.

        Raises:
            MechError: one is gone, or is not what was written.
        """
        for name, found in self.tables.items():
            if found is not None:
                check_data(self.recorded[name], found)


def _of(found: TableVersion | None, runs: Collection[str], table: Table) -> TableVersion | None:
    if found is None or not table.per_run:
        return found
    return replace(found, files=tuple(file for file in found.files if file.partition["run"] in runs))


def take_snapshot(
    files: Files,
    names: Iterable[str],
    *,
    at: datetime | None = None,
    versions: Mapping[str, int] | None = None,
) -> Snapshot:
    """The newest cut, or an older one; the logs of its tables are checked, their data files are not.

    Args:
        at: the tables as they were at that time.
        versions: the version of single tables, instead.

    Raises:
        MechError: a version is not there, or is damaged; a table or its last versions are gone.
    """
    wanted = list(names)
    if strange := set(versions or {}) - set(TABLES):
        raise unknown("table", min(strange), TABLES)
    with ThreadPoolExecutor(_THREADS) as pool:
        known = _recorded(files, wanted, pool)
        newest = _newest(files, wanted, pool)
        for name, version in newest.items():
            check_newest(known[name], version)
        if at is not None:
            newest = dict(zip(wanted, pool.map(lambda name: _version_at(files, name, at), wanted), strict=True))
        for name, version in (versions or {}).items():
            if name in newest:
                _check_version(files, name, version, newest[name])
                newest[name] = version
        opened = pool.map(lambda name: _open(known[name], newest[name]), wanted)
        return Snapshot(dict(zip(wanted, opened, strict=True)), known)


def _check_version(files: Files, name: str, version: int, newest: int) -> None:
    if newest < 0:
        raise MechError(f"table {name} was never written", "`mech run` an experiment first")
    there = delta.versions(files, name)
    if version > newest or (there and version < there[0]):
        oldest = there[0] if there else newest
        raise MechError(
            f"table {name} has no version {version}: there are {oldest} to {newest}",
            f"`mech history {name}` lists them",
        )


def _newest(files: Files, names: list[str], pool: ThreadPoolExecutor) -> dict[str, int]:
    last_made_first = sorted(names, key=list(TABLES).index, reverse=True)
    seen: dict[str, int] = {}
    for _ in range(_LOOKS):
        look = dict(zip(last_made_first, _look(files, last_made_first, pool), strict=True))
        if look == seen or len(names) == 1:
            break
        seen = look
    return look


def _recorded(files: Files, names: list[str], pool: ThreadPoolExecutor) -> dict[str, Recorded]:
    if files.delta_options is None:
        return {name: recorded(files, name) for name in names}
    return dict(zip(names, pool.map(lambda name: recorded(files, name), names), strict=True))


def _look(files: Files, names: list[str], pool: ThreadPoolExecutor) -> list[int]:
    if files.delta_options is None:  # a local folder answers faster than a thread starts, and in order
        return [delta.latest_version(files, name) for name in names]
    return list(pool.map(lambda name: delta.latest_version(files, name), names))


def _open(known: Recorded, version: int) -> TableVersion | None:
    if version < 0:
        return None
    check_log(known, version)
    found = delta.table_version(known.files, known.table, version)
    delta.check_columns(TABLES[known.table], found.schema)
    return found


def _version_at(files: Files, name: str, at: datetime) -> int:
    """The newest version not later than a time; -1 if the table did not exist yet."""
    moment = at.timestamp() * 1000
    for version in reversed(delta.versions(files, name)):
        if delta.commit_info(delta.commit_log(files, name, version)).get("timestamp", 0) <= moment:
            return version
    return -1
