"""What the parts of a repair share: the store, which tables have lost rows, and what was done."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mech_pipeline.progress import Emit
from mech_pipeline.store import delta
from mech_pipeline.store.care.findings import Lost
from mech_pipeline.store.files.interface import Files
from mech_pipeline.store.reading.connection import quoted
from mech_pipeline.store.store import Store
from mech_pipeline.store.tables.all import TABLES, Table


@dataclass
class Repair:
    """What was done.

    Attributes:
        lines: what was moved, registered and written, in words.
        losses: what must be made again.
        makers: the asset that fills each table, as the pipeline's stages say.
    """

    lines: list[str] = field(default_factory=list)
    losses: list[Lost] = field(default_factory=list)
    makers: Mapping[str, str] = field(default_factory=dict)

    @property
    def lost(self) -> list[str]:
        """What must be made again in words: asset, run, steps."""
        return list(dict.fromkeys(f"{self.makers.get(lost.table, lost.table)}: {lost.words}" for lost in self.losses))


@dataclass
class Repairing:
    """A repair under way.

    Attributes:
        shrunk: tables that have lost rows whose blobs may be whole.
    """

    store: Store
    emit: Emit
    done: Repair = field(default_factory=Repair)
    shrunk: set[str] = field(default_factory=set)

    @property
    def files(self) -> Files:
        """The files of the store."""
        return self.store.files

    def quarantine(self, name: str) -> None:
        """Moves a file to `quarantine/`, if it is still there."""
        if self.files.info(name) is not None:
            self.files.write(f"quarantine/{name}", self.files.read(name))
            self.files.remove([name])
            self.done.lines.append(f"moved {name} to quarantine/")

    def lose(self, lost: Lost) -> None:
        """Notes what a table has lost."""
        self.shrunk.add(lost.table)
        self.done.losses.append(lost)

    def forget_cells(self) -> None:
        """Takes cells out whose rows elsewhere are lost (`Table.part_of`): they are made together, or not at all."""
        for lost in self.done.losses:
            owner = TABLES[lost.table].part_of
            if owner and delta.latest_version(self.files, owner) >= 0:
                which = TABLES[lost.table].part_of_item or _condition(lost, TABLES[owner])
                self.store.delete(owner, which)


def _condition(lost: Lost, table: Table) -> str:
    """The cells of a table that lost rows of another belong to, for Delta."""
    kept = {name: value for name, value in lost.key.items() if name in ("run", "step")}
    parts = [f"{name} = {value if isinstance(value, int) else quoted(value)}" for name, value in kept.items()]
    if lost.steps is not None and "step" in table.keys:
        parts.append(f"step >= {lost.steps[0]} and step <= {lost.steps[1]}")
    return " and ".join(parts) or "true"
