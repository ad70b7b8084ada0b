"""Files of a store damaged behind its back: every kind of file, in every way, seen by every reader.

After each damage all tables and blobs are read again, by what runs a user's SQL and by what the pipeline asks with. What
comes back must be what came before the damage, or an error that names what is wrong; and where a reader refused,
`mech verify` must name something too, and say no word of a whole store. Then the store is repaired: it is whole, all tables
can be read, and no row is there that was not there before.
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

from faults_frame import Outcome, Trial, outcome_of_error
from store_measure import Say
from store_reading import fill_all_tables

from mech_pipeline.progress import Progress
from mech_pipeline.store.blobs import Blob
from mech_pipeline.store.care.maintain import maintain_store
from mech_pipeline.store.care.repair import repair_store
from mech_pipeline.store.care.verify import verify_store
from mech_pipeline.store.files.open import damaged_files
from mech_pipeline.store.reading import connect
from mech_pipeline.store.reading.query import query
from mech_pipeline.store.store import Store
from mech_pipeline.store.tables.all import TABLES

_COMMITS = 4
_TABLE = "table"
Damage = Callable[[Path, list[Path], Random], str]


def damages(folder: Path, count: int, chance: Random, say: Say) -> Iterator[Trial]:
    """Damages copies of one small store, one file each."""
    whole = folder / "whole"
    store = Store(whole)
    fill_all_tables(store, _COMMITS, say)
    maintain_store(store)  # log checkpoints, folded checksums
    older = folder / "older"
    shutil.copytree(whole / "tables", older)
    fill_all_tables(store, _COMMITS, say)  # and records and log entries after them
    truth = {name: query(whole, _all_rows(name)).rows() for name in TABLES}
    places = _places(whole)
    progress = Progress(say, "damage files", count, "files")
    for number in range(count):
        kind = list(places)[number % len(places)]
        way = list(WAYS)[number // len(places) % len(WAYS)]
        path = chance.choice(places[kind])
        broken = folder / f"broken-{number}"  # a name of its own: what a process remembers of files has their names
        shutil.copytree(whole, broken, copy_function=_link)
        if kind == _TABLE:
            way = list(TABLE_WAYS)[number // len(places) % len(TABLE_WAYS)]
            told = TABLE_WAYS[way](broken / path, older / path.name)
        else:
            told = WAYS[way](broken / path, [broken / other for other in places[kind]], chance)
        outcome, seen = _look(broken, path, truth)
        yield Trial(f"{kind}, {way}", outcome, f"{path} {told}: {seen}")
        shutil.rmtree(broken)
        progress(number + 1)


def _all_rows(name: str) -> str:
    return f"select * from {name} order by all"


Rows = list[tuple[Any, ...]]


def _concerned(path: Path) -> list[str]:
    """The table that a file belongs to, and two others, which are whole."""
    return list(dict.fromkeys([*(name for name in path.parts if name in TABLES), "runs", "checkpoints"]))


def _look(root: Path, path: Path, truth: dict[str, Rows]) -> tuple[Outcome, str]:
    """The worst that any reader makes of a store, and what it said."""
    seen: list[tuple[Outcome, str]] = []
    for name in _concerned(path):
        seen += [_seen(read, root, name, truth[name]) for read in (_queried, _asked)]
        if TABLES[name].has_blobs:
            seen += [_blobs(root, name)]
    worst = max(seen, key=lambda one: list(Outcome).index(one[0]))
    return worst if worst[0] in (Outcome.SILENT, Outcome.TRACEBACK) else _verified(root, worst, truth)


def _verified(root: Path, worst: tuple[Outcome, str], truth: dict[str, Rows]) -> tuple[Outcome, str]:
    """What `mech verify --repair` makes of it."""
    try:
        found = verify_store(damaged_files(root))
        if worst[0] is Outcome.NAMED and not found.damage:
            return Outcome.SILENT, f"verify says whole; a reader says: {worst[1]}"
        if found.damage:
            repair_store(damaged_files(root), found)
        if left := verify_store(damaged_files(root)).damage:
            return Outcome.LOST, f"not repaired: {left[0].name}: {left[0].problem}"
        made_up = _made_up(root, truth)
    except Exception as error:
        outcome = outcome_of_error(error)
        return (Outcome.LOST if outcome is Outcome.NAMED else outcome), f"verify or repair: {error!r}"
    return (Outcome.SILENT, f"after repair: other rows in {made_up}") if made_up else worst


def _made_up(root: Path, truth: dict[str, Rows]) -> list[str]:
    """Tables with rows that the whole store does not have."""
    with connect(root) as connection:
        found = {name: connection.execute(_all_rows(name)).fetchall() for name in TABLES}
    return [name for name, rows in found.items() if not _contents(name, rows) <= _contents(name, truth[name])]


def _contents(name: str, rows: Rows) -> set[str]:
    """Rows without the names of blobs: a table that went back names an older blob of equal content."""
    names = [column.name for column in TABLES[name].shown_columns]
    return {repr([value for column, value in zip(names, row, strict=True) if column != "uri"]) for row in rows}


def _seen(read: Callable[[Path, str], Rows], root: Path, name: str, truth: Rows) -> tuple[Outcome, str]:
    try:
        rows = read(root, name)
    except Exception as error:
        return outcome_of_error(error), f"{name}: {error!r}"
    same = repr(rows) == repr(truth)
    return (Outcome.SURVIVED, "") if same else (Outcome.SILENT, f"{name}: other rows, {len(rows)}")


def _queried(root: Path, name: str) -> Rows:
    return query(root, _all_rows(name)).rows()


def _asked(root: Path, name: str) -> Rows:
    with Store(root).reading(name) as connection:
        return connection.execute(_all_rows(name)).fetchall()


def _blobs(root: Path, name: str) -> tuple[Outcome, str]:
    try:
        store = Store(root)
        with store.reading(name) as connection:
            rows = connection.execute(f"select distinct uri, bytes, sha256 from {name}").fetchall()
        for row in rows:
            store.get_blob(Blob(*row), f"{name}", "`mech verify --repair`")
    except Exception as error:
        return outcome_of_error(error), f"{name}: {error!r}"
    return Outcome.SURVIVED, ""


def _places(root: Path) -> dict[str, list[Path]]:
    """Files by kind, with names under the root."""
    found: dict[str, list[Path]] = {}
    for path in sorted(root.rglob("*")):
        if path.is_file() and "locks" not in path.parts:
            found.setdefault(_kind(path.relative_to(root)), []).append(path.relative_to(root))
    newest = {path.parent: path for path in found["log entry"]}
    tables = [Path("tables", name) for name in TABLES]
    return found | {"last log entry": list(newest.values()), _TABLE: tables}


def _kind(name: Path) -> str:
    if name.parts[0] == "tables" and "_delta_log" in name.parts:
        return "log entry" if name.suffix == ".json" else "log checkpoint"
    return {"tables": "data file", "checksums": "checksum record", "blobs": "blob"}.get(name.parts[0], name.name)


def _link(source: str, target: str) -> None:
    """A second name of the same bytes: damage puts another file in its place."""
    Path(target).hardlink_to(source)


def _put(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


def _flip(path: Path, others: list[Path], chance: Random) -> str:
    content = bytearray(path.read_bytes())
    if not content:
        return "is empty"
    place, bit = chance.randrange(len(content)), chance.randrange(8)
    content[place] ^= 1 << bit
    _put(path, bytes(content))
    return f"bit {bit} of byte {place}"


def _truncate(path: Path, others: list[Path], chance: Random) -> str:
    content = path.read_bytes()
    kept = chance.randrange(len(content)) if content else 0
    _put(path, content[:kept])
    return f"cut to {kept} of {len(content)} bytes"


def _empty(path: Path, others: list[Path], chance: Random) -> str:
    _put(path, b"")
    return "emptied"


def _delete(path: Path, others: list[Path], chance: Random) -> str:
    path.unlink()
    return "deleted"


def _replace(path: Path, others: list[Path], chance: Random) -> str:
    """By another version of itself, or another file of its kind: well-formed, and not what was written."""
    near = [other for other in others if other.parent == path.parent and other != path and other.exists()]
    near = near or [other for other in others if other != path and other.exists()]
    if not near:
        return "has no other version"
    other = chance.choice(near)
    _put(path, other.read_bytes())
    return f"replaced by {other.name}"


def _without(path: Path) -> str:
    shutil.rmtree(path)
    return "removed"


def _without_newest(path: Path, count: int) -> str:
    lost = sorted((path / "_delta_log").glob("*.json"))[-count:]
    for entry in lost:
        entry.unlink()
    return f"without {', '.join(entry.name for entry in lost)}"


def _older(path: Path, older: Path) -> str:
    shutil.rmtree(path)
    shutil.copytree(older, path)
    return "is the copy from before the last commits"


def _half_copied(path: Path, older: Path) -> str:
    """As a copy that began before the last commits and was stopped: newer data files, an older log."""
    shutil.rmtree(path / "_delta_log")
    shutil.copytree(older / "_delta_log", path / "_delta_log")
    return "has the log from before the last commits"


TABLE_WAYS: dict[str, Callable[[Path, Path], str]] = {
    "folder gone": lambda path, older: _without(path),
    "log gone": lambda path, older: _without(path / "_delta_log"),
    "two newest log entries gone": lambda path, older: _without_newest(path, 2),
    "older copy": _older,
    "half copied": _half_copied,
}
WAYS: dict[str, Damage] = {
    "bit": _flip,
    "truncated": _truncate,
    "emptied": _empty,
    "deleted": _delete,
    "replaced": _replace,
}
