"""What one commit of a small table costs, on a short and on a long log."""

from pathlib import Path
from statistics import median

import pyarrow as pa
from deltalake import write_deltalake
from store_measure import Result, Say, cell_rows, p95, timed

from mech_pipeline.progress import Progress
from mech_pipeline.store.store import Store
from mech_pipeline.store.tables.all import TABLES

_TABLE, _RUN = "training_metrics", "latency"


class _Pair:
    """The same commits through the store and through plain `write_deltalake`, in turn."""

    def __init__(self, folder: Path, rows: int) -> None:
        self._store, self._plain, self._rows, self.length = Store(folder / "store"), str(folder / "plain"), rows, 0

    def commit(self) -> tuple[float, float]:
        """One commit each; milliseconds through the store, and plain."""
        step = self.length
        metrics = {"metric": [f"m{k}" for k in range(self._rows)]}
        columns = cell_rows(_TABLE, self._rows, {"run": _RUN, "step": step}, metrics)
        rows = pa.table(columns, schema=TABLES[_TABLE].schema)
        self.length += 1
        return timed(lambda: self._ours(rows, step)), timed(lambda: self._theirs(rows, step))

    def _ours(self, rows: pa.Table, step: int) -> None:
        self._store.write(_TABLE, rows, replace={"run": [_RUN], "step": [step]})

    def _theirs(self, rows: pa.Table, step: int) -> None:
        predicate = f"run = '{_RUN}' and step = {step}"
        write_deltalake(self._plain, rows, mode="overwrite", predicate=predicate, partition_by=["run"])


def measure_latency(folder: Path, rows: int, log_lengths: list[int], commits: int, say: Say) -> list[Result]:
    """Median and p95 of commits that start at each length of the log."""
    pair, results = _Pair(folder, rows), []
    progress = Progress(say, "latency", max(log_lengths) + commits, "commits")
    for length in sorted(log_lengths):
        while pair.length < max(length, 1):  # the first commit creates the table
            pair.commit()
            progress(pair.length)
        ours, theirs = zip(*(pair.commit() for _ in range(commits)), strict=True)
        for name, statistic in (("median", median), ("p95", p95)):
            mine, others = statistic(ours), statistic(theirs)
            part = f"latency, log of {length}"
            what = f"commit of {rows} rows, {name}"
            results.append(Result(part, what, mine, "ms", None, mine / others, "plain write_deltalake"))
    return results
