"""One training example: where it comes from, what it says, and which updates saw it."""

from dataclasses import dataclass
from pathlib import Path

import duckdb

from mech_pipeline.errors import MechError
from mech_pipeline.store.reading.shared import reading

_SHOWN = 5
_COLUMNS = ("example_id", "kind", "source", "document", "line", "offset", "period", "n_tokens", "text")


@dataclass(frozen=True)
class Example:
    """A training example.

    Attributes:
        kind: plain, tiled or packed.
        line: where it starts in its document, from 1.
        offset: the same in bytes.
        period: length of the snippet that a tiled example repeats, in tokens; 0: it repeats none.
        updates: of each run that saw it, the updates s (from state s to s + 1), rising; once for each place in a batch.
    """

    example_id: str
    kind: str
    source: str
    document: str
    line: int
    offset: int
    period: int
    n_tokens: int
    text: str
    updates: dict[str, list[int]]


def find_example(root: Path | str, typed: str, run: str | None = None) -> Example:
    """The example with this id, or with the only id that begins so.

    Args:
        run: tell of its updates alone.

    Raises:
        MechError: there is none, or there are several.
    """
    with reading(root, ["examples", "batches"]) as connection:
        found = _whole_id(connection, typed)
        chosen = ", ".join(f'"{name}"' for name in _COLUMNS)
        row = connection.execute(f"select {chosen} from examples where example_id = ?", [found]).fetchone()
        assert row is not None, "the id was found there"
        seen = connection.execute(
            "select run, list(update_step order by update_step) from batches where example_id = ? "
            "and (run = $2 or $2 is null) group by run order by run",
            [found, run],
        ).fetchall()
    return Example(**dict(zip(_COLUMNS, row, strict=True)), updates=dict(seen))


def _whole_id(connection: duckdb.DuckDBPyConnection, typed: str) -> str:
    found = connection.execute(
        f"select example_id from examples where starts_with(example_id, ?) order by 1 limit {_SHOWN + 1}", [typed]
    ).fetchall()
    ids = [each for (each,) in found]
    if len(ids) == 1:
        return ids[0]
    if ids:
        more = " …" if len(ids) > _SHOWN else ""
        raise MechError(f"several examples begin with {typed!r}: {', '.join(ids[:_SHOWN])}{more}", "type more of it")
    raise MechError(
        f"no example has an id that begins with {typed!r}",
        'ids are in the table examples: mech sql "select example_id, document, line from examples limit 5"',
    )
