"""Only what changed: which (step, item) cells of a run are up to date, and which must be computed.

Every computed row carries `input_fingerprint`; a cell is current when that equals the fingerprint of what it would
be made from now. The data version of a cell is the hash of its rows, so a recomputation with an unchanged result
leaves everything downstream current.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from mech_pipeline.spec.fingerprint import fingerprint
from mech_pipeline.store.reading import reading
from mech_pipeline.store.store import Store
from mech_pipeline.store.tables.all import TABLES

Cell = tuple[int, str]
"""(step, item): step is -1 in tables without steps, item is "" in tables without items."""


@dataclass(frozen=True)
class Version:
    """What a cell was made from, and what it holds."""

    input_fingerprint: str
    data_version: str


_remembered: ContextVar[dict[tuple[str, str, str], dict[Cell, Version]] | None] = ContextVar(
    "_remembered", default=None
)


@contextmanager
def one_look() -> Iterator[None]:
    """While the block runs, each (table, run) is read once: a plan asks the same questions many times."""
    token = _remembered.set({})
    try:
        yield
    finally:
        _remembered.reset(token)


def stored_versions(store: Store, name: str, run: str) -> dict[Cell, Version]:
    """The versions of every cell of a run in a table."""
    remembered = _remembered.get()
    key = (store.root, name, run)
    if remembered is None:
        return _read_versions(store, name, run)
    if key not in remembered:
        remembered[key] = _read_versions(store, name, run)
    return remembered[key]


def _read_versions(store: Store, name: str, run: str) -> dict[Cell, Version]:
    table = TABLES[name]
    step = "step" if "step" in table.keys else "-1"
    with reading(store.root, [name]) as connection:
        rows = connection.execute(
            f"select {step}, {table.item_sql}, any_value(input_fingerprint), any_value(data_version), "
            f"count(distinct input_fingerprint) from {name} where run = ? group by 1, 2",
            [run],
        ).fetchall()
    return {(row[0], row[1]): Version(row[2], row[3]) for row in rows if row[4] == 1}


def outdated(stored: Mapping[Cell, Version], wanted: Mapping[Cell, str]) -> list[Cell]:
    """The wanted cells that are missing or were made from something else, in order."""
    return sorted(
        cell for cell, expected in wanted.items() if cell not in stored or stored[cell].input_fingerprint != expected
    )


def outdated_in(store: Store, tables: Iterable[str], run: str, wanted: Mapping[Cell, str]) -> list[Cell]:
    """The wanted cells that are not current in any one of several tables that are written together, in order."""
    if not wanted:
        return []
    return sorted({cell for table in tables for cell in outdated(stored_versions(store, table, run), wanted)})


def partition_version(stored: Mapping[Cell, Version], step: int) -> str | None:
    """One data version for a (run, step) partition: the hash over its items; none if it holds nothing."""
    items = sorted((item, version.data_version) for (at, item), version in stored.items() if at == step)
    return fingerprint(*[list(pair) for pair in items]) if items else None


def combined_version(versions: Iterable[Version]) -> str:
    """One data version for many cells, for consumers that read all of them."""
    return fingerprint(*sorted(version.data_version for version in versions))
