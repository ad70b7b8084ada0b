"""What all store benchmarks share: a result, medians, a folder that goes away, rows of small tables."""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import duckdb

from mech_pipeline.store.tables.all import TABLES


@dataclass(frozen=True)
class Result:
    """One measured number.

    Attributes:
        target: largest value that is promised; none: the number is only reported.
        ratio: measured / the same thing done the plain way in the same run, named by `baseline`.
    """

    part: str
    what: str
    measured: float
    unit: str
    target: float | None = None
    ratio: float | None = None
    baseline: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the promise holds; none where nothing is promised."""
        return None if self.target is None else self.measured <= self.target


Say = Callable[[str], None]


def milliseconds(act: Callable[[], Any], repetitions: int) -> float:
    """Median wall time of a warm call: the first one is thrown away."""
    act()
    return median(timed(act) for _ in range(repetitions))


def timed(act: Callable[[], Any]) -> float:
    """Wall time of one call in milliseconds."""
    began = time.perf_counter()
    act()
    return (time.perf_counter() - began) * 1e3


def p95(values: Sequence[float]) -> float:
    """The value that one in twenty exceeds."""
    return quantiles(values, n=20)[-1] if len(values) > 1 else values[0]


def query_milliseconds(
    connection: duckdb.DuckDBPyConnection, sql: str, repetitions: int, values: Sequence[Any] = ()
) -> float:
    """Median wall time of a query whose rows are fetched, on an open connection that has run it once."""
    return milliseconds(lambda: connection.execute(sql, list(values)).fetchall(), repetitions)


@contextmanager
def scratch(under: Path | None, name: str) -> Iterator[Path]:
    """A folder for one benchmark, removed afterwards."""
    if under is not None:
        under.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"mech-benchmark-{name}-", dir=under))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def cell_rows(table: str, count: int, fixed: dict[str, Any], varying: dict[str, Sequence[Any]]) -> dict[str, list[Any]]:
    """`count` rows of a table: columns with one value, columns with a value a row, and something fitting elsewhere."""
    plain = {"string": "x" * 64, "int32": 0, "int64": 0, "float32": 0.5, "float64": 0.5, "bool": False}
    return {
        column.name: list(varying[column.name])
        if column.name in varying
        else [fixed.get(column.name, plain[column.type])] * count
        for column in TABLES[table].all_columns
    }
