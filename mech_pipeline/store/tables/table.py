"""What a table's description is made of, and the columns that many tables share."""

from dataclasses import dataclass, field

import pyarrow as pa

_TYPES = {
    "string": pa.string(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
}


@dataclass(frozen=True)
class Column:
    """One column: name, type, unit, meaning."""

    name: str
    type: str
    meaning: str
    unit: str = ""
    nullable: bool = False
    default: str | float | None = None
    """What an empty value means, where the column came after rows had been written: it is read as this."""
    came_later: bool = False
    """Whether cells had versions before it: it has a part in a cell's only where it holds more than its default."""


@dataclass(frozen=True)
class Derived:
    """A column that views compute from the others; it is stored nowhere."""

    column: Column
    sql: str


@dataclass(frozen=True)
class Table:
    """One table: what a row is, its columns, and which columns name a row."""

    name: str
    meaning: str
    columns: tuple[Column, ...]
    keys: tuple[str, ...]
    item: str | None = None
    sort: tuple[str, ...] = ()
    ranked: str | None = None
    computed: bool = True
    derived: tuple[Derived, ...] = ()
    part_of: str | None = None
    """The table whose cells these rows are a part of: where they are lost, those cells are made again."""
    part_of_item: str = ""
    """Which of its cells these are, as an SQL condition, if not those with the same run and step."""
    all_columns: tuple[Column, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "all_columns", self.columns + (PROVENANCE if self.computed else ()))

    @property
    def schema(self) -> pa.Schema:
        """Arrow schema in column order; Delta keeps exactly these types."""
        return pa.schema([pa.field(c.name, _TYPES[c.type], nullable=c.nullable) for c in self.all_columns])

    @property
    def shown_columns(self) -> tuple[Column, ...]:
        """Columns of its view: what is stored, then what is computed from that."""
        return self.all_columns + tuple(each.column for each in self.derived)

    @property
    def item_sql(self) -> str:
        """SQL for the item that a row belongs to. Every method of influence is an item of its own."""
        if self.item is None:
            return "''"
        if "method" not in self.keys:
            return self.item
        return f"case when method = '{ADJOINT}' then {self.item} else {self.item} || ':' || method end"

    @property
    def order(self) -> tuple[str, ...]:
        """Columns by which files are sorted."""
        return self.sort or self.keys

    @property
    def has_blobs(self) -> bool:
        """Whether rows name files (`uri`, `bytes`, `sha256`)."""
        return any(column.name == "uri" for column in self.columns)

    @property
    def per_run(self) -> bool:
        """Whether rows belong to a run (then `run` partitions the files)."""
        return "run" in self.keys


PROVENANCE = (
    Column("input_fingerprint", "string", "SHA-256 of code version, spec slice and input data versions"),
    Column("data_version", "string", "SHA-256 of what this (run, step, item) holds: its rows, its state or its file"),
)
RUN = Column("run", "string", "run id: <experiment>.<arm>.s<seed>")
STEP = Column("step", "int32", "checkpoint step: optimizer updates done", "updates")
MECHANISM = Column("mechanism", "string", "name of the mechanism")
ADJOINT, EVERYTHING = "adjoint", "all"
METHOD = Column(
    "method",
    "string",
    "estimator: adjoint (exact), adjoint_mean, or a cheap one (see docs/method.md); never add up several",
    nullable=True,
    default=ADJOINT,
)
MEANING = Column(
    "meaning",
    "string",
    "position: the token whose activations the gradient went through; target: the token whose loss it is",
)
TOKEN_POSITION = Column("token_position", "int32", "token of the example, from 0", "tokens")
FRACTION = Column("fraction", "float64", "share of the examples seen before `step` that is left out", "1")
UPDATE_STEP = Column("update_step", "int32", "update s, from state s to state s + 1", "updates")
BLOB = (
    Column("uri", "string", "file under the store's root"),
    Column("bytes", "int64", "size of the file", "bytes"),
    Column("sha256", "string", "SHA-256 of the file"),
)
