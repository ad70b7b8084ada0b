"""Files of a store damaged behind its back: every kind of file, in every way, seen by every reader.

After each damage all tables and blobs are read again, by what runs a user's SQL and by what the pipeline asks with. What
comes back must be what came before the damage, or an error that names what is wrong; and where a reader refused,
`mech verify` must name something too, and say no word of a whole store.
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
from mech_pipeline.store.care.verify import verify_store
from mech_pipeline.store.reading.query import query
from mech_pipeline.store.store import Store
from mech_pipeline.store.tables.all import TABLES

_COMMITS = 4
Damage = Callable[[Path, list[Path], Random], str]


def damages(folder: Path, count: int, chance: Random, say: Say) -> Iterator[Trial]:
    """Damages copies of one small store, one file each."""
    whole = folder / "whole"
    store = Store(whole)
    fill_all_tables(store, _COMMITS, say)
    maintain_store(store)  # log checkpoints, folded checksums
    fill_all_tables(store, _COMMITS, say)  # and records and log entries after them
    truth = {name: _rows(query(whole, _all_rows(name)).rows()) for name in TABLES}
    places = _places(whole)
    progress = Progress(say, "damage files", count, "files")
    for number in range(count):
        kind = list(places)[number % len(places)]
        way = list(WAYS)[number // len(places) % len(WAYS)]
        path = chance.choice(places[kind])
        broken = folder / f"broken-{number}"  # a name of its own: what a process remembers of files has their names
        shutil.copytree(whole, broken, copy_function=_link)
        told = WAYS[way](broken / path, [broken / other for other in places[kind]], chance)
        outcome, seen = _look(broken, path, truth)
        yield Trial(f"{kind}, {way}", outcome, f"{path} {told}: {seen}")
        shutil.rmtree(broken)
        progress(number + 1)


def _all_rows(name: str) -> str:
    return f"select * from {name} order by all"


def _rows(rows: list[tuple[Any, ...]]) -> str:
    return repr(rows)


def _concerned(path: Path) -> list[str]:
    """The table that a file belongs to, and two others, which are whole."""
    return list(dict.fromkeys([*(name for name in path.parts if name in TABLES), "runs", "checkpoints"]))


def _look(root: Path, path: Path, truth: dict[str, str]) -> tuple[Outcome, str]:
    """The worst that any reader makes of a store, and what it said."""
    seen: list[tuple[Outcome, str]] = []
    for name in _concerned(path):
        seen += [_seen(read, root, name, truth[name]) for read in (_queried, _asked)]
        if TABLES[name].has_blobs:
            seen += [_blobs(root, name)]
    worst = max(seen, key=lambda one: list(Outcome).index(one[0]))
    return worst if worst[0] in (Outcome.SILENT, Outcome.TRACEBACK) else _verified(root, worst)


def _verified(root: Path, worst: tuple[Outcome, str]) -> tuple[Outcome, str]:
    try:
        found = verify_store(Store(root).files)
    except Exception as error:
        outcome = outcome_of_error(error)
        return (outcome, f"verify: {error!r}") if outcome is Outcome.TRACEBACK else worst
    if worst[0] is Outcome.NAMED and not found.damage:
        return Outcome.SILENT, f"verify says whole; a reader says: {worst[1]}"
    return worst


def _seen(read: Callable[[Path, str], list[tuple[Any, ...]]], root: Path, name: str, truth: str) -> tuple[Outcome, str]:
    try:
        rows = read(root, name)
    except Exception as error:
        return outcome_of_error(error), f"{name}: {error!r}"
    return (Outcome.SURVIVED, "") if _rows(rows) == truth else (Outcome.SILENT, f"{name}: other rows, {len(rows)}")


def _queried(root: Path, name: str) -> list[tuple[Any, ...]]:
    return query(root, _all_rows(name)).rows()


def _asked(root: Path, name: str) -> list[tuple[Any, ...]]:
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
    return found | {"last log entry": list(newest.values())}


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


WAYS: dict[str, Damage] = {
    "bit": _flip,
    "truncated": _truncate,
    "emptied": _empty,
    "deleted": _delete,
    "replaced": _replace,
}
