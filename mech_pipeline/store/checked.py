"""What is read is what was written, or an error that names the file and `mech verify --repair`.

The records of a table (`checksums`) are looked at before its log is listed, so a commit in between is only newer in the
log. Then a version that has a record must be in the log, and every log entry and data file that a reader uses must have
its recorded size, at each look, and its recorded SHA-256, once a process and again when the file's size or time changes
(1.4 GB/s). What has no record passes if it can be read: its writer was killed before it recorded, or is about to.

On S3, which keeps checksums of its own, a new version of a table costs one listing of its files for their sizes, and only
the log is read through.

A fault counts when it is seen twice, a moment apart: a maintenance that runs now may replace a log checkpoint and fold
records between two looks.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from mech_pipeline.errors import MechError
from mech_pipeline.spec.fingerprint import file_sha256
from mech_pipeline.store import checksums, delta
from mech_pipeline.store.checksums import Checksum
from mech_pipeline.store.delta import DataFile, TableVersion
from mech_pipeline.store.files.interface import Files

REPAIR = "`mech verify --repair`"
_PAUSES = (0.05, 0.25)  # seconds before a fault is looked for again
_CLOCK = 1_000_000_000
"""Nanoseconds after a change from which the time of a folder tells of the next one; clocks of file systems are coarse."""
_IN_PARALLEL = 8 << 20  # bytes from which hashing in threads is worth them
_Mark = tuple[int, int]


@dataclass
class _Remembered:
    """What this process knows of a table.

    Attributes:
        folder: size and time of the records' folder when it was listed.
        recorded: what was found then.
        log: the version whose log was found whole last, with size and time of its last entry.
        read: records that were read.
        sums: what they say.
        whole: size and time of log entries and data files that were found whole.
        listed: the version whose files were found by listing, on S3.
    """

    folder: "_Mark | None" = None
    recorded: "Recorded" = None  # type: ignore[assignment]
    log: object = None
    read: set[str] = field(default_factory=set)
    sums: dict[str, Checksum] = field(default_factory=dict)
    whole: dict[str, _Mark] = field(default_factory=dict)
    listed: TableVersion | None = None


_tables: dict[tuple[Files, str], _Remembered] = {}


@dataclass(frozen=True)
class Recorded:
    """The records of a table at one moment.

    Attributes:
        names: of their files; what they hold is read when it is needed.
        version: the newest that has one; -1: none.
    """

    files: Files
    table: str
    names: tuple[str, ...]
    version: int

    def sums(self, since: int = -1) -> Mapping[str, Checksum]:
        """Checksums by name of file, from the records of these versions at least; damaged records say nothing."""
        known = _remembered(self.files, self.table)
        names = [name for name in self.names if name not in known.read and checksums.version_of(name) >= since]
        while names:
            contents = checksums.read_each(self.files, names)
            for name, content in contents.items():
                known.sums.update(checksums.parsed(name, self.table, content) or {})
            known.read.update(contents)
            # Folded into another record meanwhile: that one has them.
            names = (
                []
                if len(contents) == len(names)
                else [n for n in checksums.record_names(self.files, self.table) if n not in known.read]
            )
        return known.sums


def recorded(files: Files, table: str) -> Recorded:
    """What is recorded of a table; to be asked before its log is listed."""
    remembered, mark = _remembered(files, table), None
    if files.local_path("") is not None:  # its time tells whether a folder has changed since it was listed
        mark = files.marks([checksums.folder(table)])[0]
        if mark is not None and remembered.folder == mark:
            return remembered.recorded
    began = time.time_ns()
    names = tuple(checksums.record_names(files, table))
    found = Recorded(files, table, names, max(map(checksums.version_of, names), default=-1))
    if mark is not None and mark[1] < began - _CLOCK:
        remembered.folder, remembered.recorded = mark, found
    return found


def check_newest(known: Recorded, newest: int) -> None:
    """That the log has every version that was acknowledged.

    Raises:
        MechError: the table, or its last versions, are gone.
    """
    if newest >= known.version:
        return
    if newest < 0:
        raise MechError(
            f"table {known.table} is gone: it had version {known.version}, {_where(known)} has no log", REPAIR
        )
    name = delta.log_name(known.table, newest + 1)
    raise MechError(
        f"table {known.table} has lost its last versions: {known.files.url(name)} is gone, and it had version {known.version}",
        REPAIR,
    )


def check_log(known: Recorded, version: int) -> None:
    """That the log entries which make a version are there, and are what was written.

    Raises:
        MechError: one is not.
    """
    _twice(known, lambda: _check_log(known, version))


def check_data(known: Recorded, found: TableVersion, only: Iterable[DataFile] | None = None) -> None:
    """That the data files of a version are there, and are what was written.

    Args:
        only: these of them.

    Raises:
        MechError: one is not.
    """
    chosen = found.files if only is None else tuple(only)
    look = _check_listed if known.files.local_path("") is None else _check_local
    _twice(known, lambda: look(known, found, chosen))


def newest_version(files: Files, table: str) -> int:
    """The newest version of a table, whose log is whole; -1 if it was never written.

    Raises:
        MechError: the log is not whole.
    """
    known = recorded(files, table)
    version = delta.latest_version(files, table)
    check_newest(known, version)
    if version >= 0:
        check_log(known, version)
    return version


def _where(known: Recorded) -> str:
    return known.files.url(delta.folder(known.table))


def _remembered(files: Files, table: str) -> _Remembered:
    return _tables.setdefault((files, table), _Remembered())


def _twice(known: Recorded, look: Callable[[], None]) -> None:
    """Looks; where something is wrong, forgets what is known of the table and looks again."""
    for pause in _PAUSES:
        try:
            return look()
        except MechError:
            _tables.pop((known.files, known.table), None)
            time.sleep(pause)
    look()


def _check_log(known: Recorded, version: int) -> None:
    files, remembered = known.files, _remembered(known.files, known.table)
    mark = (
        (version, *files.marks([delta.log_name(known.table, version)])) if files.local_path("") is not None else version
    )
    if remembered.log == mark:  # the log is not read again either
        return
    whole = remembered.whole
    names, since = delta.log_of(files, known.table, version)
    new = _new(known, names, version)
    sums, contents = known.sums(since), checksums.read_each(files, list(new))
    for name, mark in new.items():
        if name not in contents:
            raise _gone(known, name, version)
        _check(known, name, checksums.checksum(contents[name]), sums.get(name))
        if name not in sums and name.endswith(".json"):
            with delta.damage_in_words(known.table, version):
                delta.parsed_log(contents[name])
        whole[name] = mark
    remembered.log = mark


def _new(known: Recorded, names: Sequence[str], version: int) -> dict[str, _Mark]:
    """Of some files, those that were not found whole as they are now. On S3 a name is written once, and nothing is asked."""
    whole = _remembered(known.files, known.table).whole
    if known.files.local_path("") is None:
        return {name: (0, 0) for name in names if name not in whole}
    new = {}
    for name, mark in zip(names, known.files.marks(names), strict=True):
        if mark is None:
            raise _gone(known, name, version)
        if whole.get(name) != mark:
            new[name] = mark
    return new


def _check_local(known: Recorded, found: TableVersion, chosen: Sequence[DataFile]) -> None:
    """By size and time at each look; by content where these are new."""
    new = _new(known, [file.name for file in chosen], found.version)
    if not new:
        return
    whole, sums = _remembered(known.files, known.table).whole, known.sums()
    sizes = {file.name: file.bytes for file in chosen}

    def check_content(name: str) -> None:
        _check_size(known, name, new[name][0], sizes[name])
        if (expected := sums.get(name)) is not None:
            _check_size(known, name, new[name][0], expected.bytes)
            _check(known, name, Checksum(expected.bytes, _sha256(known.files, name)), expected)
        whole[name] = new[name]

    if sum(size for size, _ in new.values()) < _IN_PARALLEL:
        for name in new:
            check_content(name)
    else:
        with ThreadPoolExecutor(known.files.parallel) as pool:
            list(pool.map(check_content, new))


def _check_listed(known: Recorded, found: TableVersion, chosen: Sequence[DataFile]) -> None:
    remembered = _remembered(known.files, known.table)
    if remembered.listed is found:
        return
    there = {entry.name: entry.bytes for entry in known.files.entries(delta.folder(known.table))}
    for file in chosen:
        if file.name not in there:
            raise _gone(known, file.name, found.version)
        _check_size(known, file.name, there[file.name], file.bytes)
    if len(chosen) == len(found.files):
        remembered.listed = found


def _gone(known: Recorded, name: str, version: int) -> MechError:
    return MechError(f"{known.files.url(name)} is gone: table {known.table}, version {version}, needs it", REPAIR)


def _check_size(known: Recorded, name: str, size: int, expected: int) -> None:
    if size != expected:
        raise _other(known, name, f"{size} bytes, {expected} were written")


def _check(known: Recorded, name: str, found: Checksum, expected: Checksum | None) -> None:
    if expected is not None:
        _check_size(known, name, found.bytes, expected.bytes)
        if found.sha256 != expected.sha256:
            raise _other(known, name, f"its SHA-256 is {found.sha256[:12]}…, {expected.sha256[:12]}… was written")


def _other(known: Recorded, name: str, wrong: str) -> MechError:
    return MechError(f"{known.files.url(name)} of table {known.table} is damaged: {wrong}", REPAIR)


def _sha256(files: Files, name: str) -> str:
    path = files.local_path(name)
    assert path is not None, "the files of a folder are hashed"
    return file_sha256(path)
