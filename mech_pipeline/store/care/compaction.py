"""Compaction of one run's part of a table: many small files become one, sorted, in one commit.

Rows are read through DuckDB (which sorts on disk where they do not fit in memory) and written as Parquet. The commit
removes exactly the files that were read and adds the new one; it succeeds only if nobody committed to the table since
those files were listed, so a row that another writer changes meanwhile can neither be lost nor come back. If somebody
did, and the run's files are still the same, the commit is tried again against the newer version.

Of a table with a `ranked` value (ledger, influence) the 1,024 largest and the 1,024 smallest rows come first, in a row
group of their own: "the top 20 of everything" then reads that group, and the statistics of the others tell DuckDB (from
2.0) to skip them. The others keep the order in which they compress best.
"""

import json
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import AddAction

from mech_pipeline.errors import MechError
from mech_pipeline.store import checked, commits, delta
from mech_pipeline.store.delta import DataFile, TableVersion
from mech_pipeline.store.files.interface import readable_storage_errors
from mech_pipeline.store.reading.connection import open_views
from mech_pipeline.store.reading.snapshot import Snapshot
from mech_pipeline.store.store import DICTIONARY_BYTES, PAGE_BYTES, ROW_GROUP, Store
from mech_pipeline.store.tables.all import TABLES, Table

EXTREMES = 1024
_COMMITS = 20
_PAUSE_SECONDS = 0.2


def files_of(found: TableVersion, run: str | None) -> list[DataFile]:
    """The live files of a run (of the whole table if it is not partitioned)."""
    return [file for file in found.files if file.partition.get("run") == run]


def compact(store: Store, name: str, run: str | None) -> int:
    """Makes one file of a run's files in a table; returns how many there were, 0 if nothing was done.

    Raises:
        MechError: other writers were always faster, or a file is damaged; nothing has changed.
    """
    table = TABLES[name]
    known = checked.recorded(store.files, name)
    found = delta.table_version(store.files, name, checked.newest_version(store.files, name))
    delta.check_columns(table, found.schema)
    before = files_of(found, run)
    checked.check_data(known, found, before)  # a damaged row would get a checksum of its own
    with TemporaryDirectory(prefix=".compact-", dir=store.files.scratch) as folder:
        local = Path(folder, "rows.parquet")
        part = TableVersion(found.version, found.committed, tuple(before), found.schema)
        with (
            readable_storage_errors(store.root),
            open_views(store.files, Snapshot({name: part}), spill=folder) as connection,
        ):
            rows = _write(connection, table, local)
        if rows != sum(file.rows for file in before):
            raise MechError(
                f"compaction of {name} read {rows} rows, {sum(f.rows for f in before)} are listed", "`mech verify`"
            )
        stats = _statistics(table, local)
        place = f"run={run}/" if run is not None else ""
        path = f"{place}part-00000-{uuid.uuid4()}-c000.zstd.parquet"
        size = local.stat().st_size
        store.files.put(local, f"{delta.folder(name)}/{path}")
    added = AddAction(
        path=path,
        size=size,
        partition_values={"run": run} if run is not None else {},
        modification_time=int(time.time() * 1000),
        data_change=False,
        stats=stats,
    )
    try:
        _publish(store, name, run, before, added)
    except BaseException:
        store.files.remove([f"{delta.folder(name)}/{path}"])
        raise
    return len(before)


def _publish(store: Store, name: str, run: str | None, before: list[DataFile], added: AddAction) -> None:
    table = TABLES[name]
    for attempt in range(_COMMITS):
        opened = delta.open_table(store.files, name)
        now = delta.table_version(store.files, name, opened.version())
        if {file.name for file in files_of(now, run)} != {file.name for file in before}:
            break
        mark = uuid.uuid4().hex
        properties = store.commit_properties(mark, "", "", retries=0, operation="COMPACT")
        try:
            opened.create_write_transaction(
                [added],
                mode="overwrite",
                schema=opened.schema(),
                partition_by=["run"] if table.per_run else None,
                partition_filters=[("run", "=", run)] if run is not None else None,
                commit_properties=properties,
                post_commithook_properties=delta.NO_HOOKS,
            )
        except CommitFailedError:
            time.sleep(_PAUSE_SECONDS * (1 + attempt % 3))
            continue
        opened.update_incremental()
        commits.record(store.files, name, opened, mark, now.version)
        return
    where = f"run {run}" if run is not None else "the whole table"
    raise MechError(f"table {name}, {where}, is being written; it stays as it is", "run `mech maintain` again later")


def _write(connection: duckdb.DuckDBPyConnection, table: Table, path: Path) -> int:
    """The rows of the view, extremes first, then in the table's order; returns their number."""
    columns = [c for c in table.all_columns if not (table.per_run and c.name == "run")]
    schema = pa.schema([table.schema.field(c.name) for c in columns])
    listed = ", ".join(f'"{c.name}"' for c in columns)
    order = ", ".join(f'"{name}"' for name in table.order)
    in_order = f"select {listed} from {table.name} order by {order}"
    bounds, rows = _bounds(connection, table), 0
    with _writer(path, table, schema) as write:
        if bounds is not None:
            apart = [group.filter(_apart(group[table.ranked], bounds)) for group in _groups(connection.sql(in_order))]
            rows += write(pa.concat_tables(apart).sort_by([(table.ranked, "descending")]))
        for group in _groups(connection.sql(in_order)):
            rows += write(group if bounds is None else group.filter(pc.invert(_apart(group[table.ranked], bounds))))
    return rows


def _apart(values: pa.ChunkedArray, bounds: tuple[float, float]) -> pa.Array:
    """Which rows go first: the extreme ones and the up to seven others in their blocks of eight.

    Eight dictionary codes fill whole bytes, whatever their width. Taken out by the block, what follows stays aligned, and
    zstd still finds the same examples in the next target: 3.9 bytes a row of `influence`, 4.5 if taken out one by one.
    """
    numbers = values.to_numpy()
    extreme = (numbers <= bounds[0]) | (numbers >= bounds[1])
    blocks = np.logical_or.reduceat(extreme, np.arange(0, len(extreme), 8))
    return pa.array(np.repeat(blocks, 8)[: len(extreme)])


def _bounds(connection: duckdb.DuckDBPyConnection, table: Table) -> tuple[float, float] | None:
    """The values beyond which the extreme rows lie; none where that would be no small part of the rows."""
    if table.ranked is None:
        return None
    value, name = f'"{table.ranked}"', table.name
    sql = f"""select
        (select {value}::double from {name} order by {value} limit 1 offset {EXTREMES - 1}),
        (select {value}::double from {name} order by {value} desc limit 1 offset {EXTREMES - 1})"""
    low, high = connection.sql(sql).fetchall()[0]
    if low is None or high is None or low >= high:
        return None
    outside = f"select count(*) from {name} where {value} <= {low!r} or {value} >= {high!r}"
    total = f"select count(*) from {name}"
    extreme, everything = connection.sql(outside).fetchall()[0][0], connection.sql(total).fetchall()[0][0]
    return (low, high) if extreme <= 4 * EXTREMES and everything >= 16 * EXTREMES else None


@contextmanager
def _writer(path: Path, table: Table, schema: pa.Schema) -> Iterator[Callable[[pa.Table], int]]:
    floats = [c.name for c in table.columns if c.type.startswith("float")]
    with pq.ParquetWriter(
        path,
        schema,
        compression="zstd",
        compression_level=3,
        use_dictionary=[field.name for field in schema if field.name not in floats],
        column_encoding=dict.fromkeys(floats, "BYTE_STREAM_SPLIT") or None,
        dictionary_pagesize_limit=DICTIONARY_BYTES,
        data_page_size=PAGE_BYTES,
        max_rows_per_page=ROW_GROUP,
        write_page_checksum=True,
    ) as writer:

        def write(rows: pa.Table) -> int:
            if rows.num_rows:
                writer.write_table(rows.cast(schema), row_group_size=ROW_GROUP)
            return int(rows.num_rows)

        yield write


def _groups(relation: duckdb.DuckDBPyRelation) -> Iterator[pa.Table]:
    """The result in pieces of one row group, so that memory holds one at a time."""
    reader = relation.to_arrow_reader(ROW_GROUP)
    kept: list[pa.RecordBatch] = []
    for batch in reader:
        kept.append(batch)
        while sum(b.num_rows for b in kept) >= ROW_GROUP:
            whole = pa.Table.from_batches(kept)
            yield whole.slice(0, ROW_GROUP)
            kept = whole.slice(ROW_GROUP).to_batches()
    if kept:
        yield pa.Table.from_batches(kept)


def _statistics(table: Table, path: Path) -> str:
    """Delta's statistics of a file, from the Parquet footer: number of rows, smallest and largest numbers."""
    footer = pq.read_metadata(path)
    low: dict[str, float] = {}
    high: dict[str, float] = {}
    empty: dict[str, int] = {}
    for group in range(footer.num_row_groups):
        for index in range(footer.num_columns):
            column = footer.row_group(group).column(index)
            name, found = column.path_in_schema, column.statistics
            kind = next(c.type for c in table.all_columns if c.name == name)
            if found is not None and found.has_null_count:
                empty[name] = empty.get(name, 0) + found.null_count
            if found is None or not found.has_min_max or kind in ("string", "bool"):
                continue
            low[name] = min(low.get(name, found.min), found.min)
            high[name] = max(high.get(name, found.max), found.max)
    return json.dumps({"numRecords": footer.num_rows, "minValues": low, "maxValues": high, "nullCount": empty})
