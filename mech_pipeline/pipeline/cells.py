"""Cells: the units that are current or not, one way to ask about them and one way to write them.

Every computed row carries `input_fingerprint`; a cell is current when that equals the fingerprint of what it would
be made from now. The data version of a cell is the hash of its rows, so a recomputation with an unchanged result
leaves everything downstream current.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import pyarrow as pa

from mech_pipeline.pipeline.look import among, answer_of
from mech_pipeline.spec.fingerprint import fingerprint
from mech_pipeline.store.rows import content_version
from mech_pipeline.store.store import Store
from mech_pipeline.store.tables.all import ADJOINT, TABLES
from mech_pipeline.store.tables.table import Table


@dataclass(frozen=True)
class Cell:
    """What one write replaces as a whole: the rows of a table with these keys.

    Attributes:
        run: its id; in tables of experiments, the name of the experiment.
        step: of the checkpoint; none in tables of whole runs.
        item: mechanism, detector, gradient, removal or artifact, as the table's `item` says; none in tables without.
        method: estimator, in tables that have several.
    """

    table: str
    run: str
    step: int | None = None
    item: str | None = None
    method: str | None = None

    def __lt__(self, other: "Cell") -> bool:
        return self._place < other._place

    @property
    def _place(self) -> tuple[int, str, str, str, str]:
        """By step, then by what they are of."""
        return (-1 if self.step is None else self.step, self.item or "", self.method or "", self.table, self.run)

    @property
    def keys(self) -> dict[str, str | int]:
        """The key columns that name it, with their values."""
        table = TABLES[self.table]
        named = {_owner(table): self.run, "step": self.step, table.item or "": self.item, "method": self.method}
        return {column: value for column, value in named.items() if value is not None}

    @property
    def label(self) -> str:
        """Its item in one word: `induction`, or `induction:ekfac` of an estimator that is not the exact one.

        >>> Cell("influence", "e.a.s0", 6, "induction", "ekfac").label, Cell("checkpoints", "e.a.s0", 6).label
        ('induction:ekfac', '')
        """
        return (self.item or "") + (f":{self.method}" if self.method not in (None, ADJOINT) else "")

    def of(self, table: str) -> "Cell":
        """The cell with these keys in another table."""
        return Cell(table, self.run, self.step, self.item, self.method)


@dataclass(frozen=True)
class Version:
    """What a cell was made from, and what it holds."""

    input_fingerprint: str
    data_version: str


def stored_versions(store: Store, name: str, run: str) -> dict[Cell, Version]:
    """The versions of every cell of a run in a table."""
    return answer_of(store, name, run, lambda runs: _read_versions(store, name, runs))


def _read_versions(store: Store, name: str, runs: Sequence[str]) -> dict[str, dict[Cell, Version]]:
    table = TABLES[name]
    columns = ["step" if "step" in table.keys else None, table.item, "method" if "method" in table.keys else None]
    chosen = ", ".join(column or "null" for column in columns)
    owner = _owner(table)
    with store.reading(name, of=runs) as connection:
        rows = connection.execute(
            f"select {owner}, {chosen}, any_value(input_fingerprint), any_value(data_version), "
            f"count(distinct input_fingerprint) from {name} where {among(owner, runs)} group by all",
            list(runs),
        ).fetchall()
    found: dict[str, dict[Cell, Version]] = {run: {} for run in runs}
    for run, step, item, method, made_from, version, count in rows:
        if count == 1:
            found[run][Cell(name, run, step, item, method)] = Version(made_from, version)
    return found


def _owner(table: Table) -> str:
    """The key column that says whose the rows are."""
    return "run" if table.per_run else "experiment"


def outdated(stored: Mapping[Cell, Version], wanted: Mapping[Cell, str]) -> list[Cell]:
    """The wanted cells that are missing or were made from something else, in order."""
    return sorted(
        cell for cell, expected in wanted.items() if cell not in stored or stored[cell].input_fingerprint != expected
    )


def pending_cells(store: Store, wanted: Mapping[Cell, str], also: Iterable[str] = ()) -> list[Cell]:
    """The wanted cells that are not current in the store, in order.

    Args:
        also: tables in which each of them has rows too, written together; one missing there is missing.
    """
    late: set[Cell] = set()
    for table, run in {(cell.table, cell.run) for cell in wanted}:
        own = {cell: expected for cell, expected in wanted.items() if (cell.table, cell.run) == (table, run)}
        late |= set(outdated(stored_versions(store, table, run), own))
        for other in also:
            companions = {cell.of(other): expected for cell, expected in own.items()}
            late |= {cell.of(table) for cell in outdated(stored_versions(store, other, run), companions)}
    return sorted(late)


def steps_of(cells: Iterable[Cell]) -> list[int]:
    """The steps of some cells, rising."""
    return sorted({cell.step for cell in cells if cell.step is not None})


def partition_version(stored: Mapping[Cell, Version], step: int) -> str | None:
    """One data version for a (run, step) partition: the hash over its items; none if it holds nothing."""
    items = sorted((cell.label, version.data_version) for cell, version in stored.items() if cell.step == step)
    return fingerprint(*[list(pair) for pair in items]) if items else None


def combined_version(versions: Iterable[Version]) -> str:
    """One data version for many cells, for consumers that read all of them."""
    return fingerprint(*sorted(version.data_version for version in versions))


@dataclass(frozen=True)
class Block:
    """Rows of one cell.

    Attributes:
        columns: without those that name the cell; lists or Arrow arrays of one length.
        made_from: fingerprint of what they were made from.
        version: what the cell holds, if that is more than its rows; none: the hash of the rows.
    """

    cell: Cell
    columns: Mapping[str, Any]
    made_from: str
    version: str | None = None

    def hashed(self) -> "Block":
        """The block with its version, for whoever needs it before the block is written."""
        if self.version is not None:
            return self
        table = TABLES[self.cell.table]
        return replace(self, version=content_version(table, self._typed()))

    def rows(self) -> pa.Table:
        """Complete rows, in the types of the table."""
        table, block = TABLES[self.cell.table], self.hashed()
        count = len(next(iter(self.columns.values())))
        provenance = {"input_fingerprint": block.made_from, "data_version": str(block.version)}
        typed = self._typed() | {name: _repeated(table, name, value, count) for name, value in provenance.items()}
        schema = pa.schema([field for field in table.schema if field.name in typed])
        return pa.table([typed[name] for name in schema.names], schema=schema)

    def _typed(self) -> dict[str, Any]:
        """All columns but the provenance."""
        table, count = TABLES[self.cell.table], len(next(iter(self.columns.values())))
        typed = {name: _typed(table, name, values) for name, values in self.columns.items()}
        return typed | {name: _repeated(table, name, value, count) for name, value in self.cell.keys.items()}


def write(
    store: Store,
    blocks: Sequence[Block],
    code_version: str,
    *,
    within: Mapping[str, Sequence[Any]] | None = None,
) -> None:
    """Publishes cells of one table, each in place of what it held, in as few commits as there are blocks of keys.

    Args:
        blocks: one or several of each cell.
        within: replaces only these parts of the cells, by further key columns.

    Raises:
        ValueError: the rows break the table's description.
        MechError: the store cannot be written; nothing of this commit has changed.
    """
    written = [block.rows() for block in blocks]
    for cells in _rectangles({block.cell for block in blocks}):
        rows = pa.concat_tables([made for block, made in zip(blocks, written, strict=True) if block.cell in cells])
        replaced: dict[str, Sequence[Any]] = {
            name: sorted({cell.keys[name] for cell in cells}) for name in next(iter(cells)).keys
        }
        store.write(blocks[0].cell.table, rows, replace=replaced | dict(within or {}), code_version=code_version)


def _rectangles(cells: set[Cell]) -> list[set[Cell]]:
    """Groups of cells that are all combinations of their keys, because a commit replaces all combinations. Usually one."""
    names = next(iter(cells)).keys
    if len(cells) == prod(len({cell.keys[name] for cell in cells}) for name in names):
        return [cells]
    groups: dict[frozenset[tuple[str | None, str | None]], set[Cell]] = {}
    for step in {cell.step for cell in cells}:
        of_step = {cell for cell in cells if cell.step == step}
        groups.setdefault(frozenset((cell.item, cell.method) for cell in of_step), set()).update(of_step)
    found = list(groups.values())
    return found if len(found) > 1 else [{cell} for cell in cells]


def _typed(table: Table, name: str, values: Any) -> pa.Array | pa.ChunkedArray:
    wanted = table.schema.field(name).type
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return values if values.type == wanted else values.cast(wanted)
    return pa.array(values, type=wanted)


def _repeated(table: Table, name: str, value: str | int, count: int) -> pa.Array:
    return pa.repeat(pa.scalar(value, table.schema.field(name).type), count)
