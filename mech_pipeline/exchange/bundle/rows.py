"""The rows of an experiment, table by table: which they are, and how they leave as Parquet and come back.

A table of runs gives the rows of the experiment's runs, a table of experiments those of the experiment. Examples belong
to no run: those of the runs' pools go along, seen or not. Every stored column is written, provenance too; what views
compute from others is not.
"""

from collections.abc import Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from mech_pipeline.errors import MechError
from mech_pipeline.store.reading.connection import quoted
from mech_pipeline.store.rows import check_rows
from mech_pipeline.store.store import Store
from mech_pipeline.store.tables.all import TABLES
from mech_pipeline.store.tables.table import Table

FOLDER = "tables"
_POOL = "pool_of_the_bundle"
_ROW_GROUP = 1 << 18


def select_examples(connection: duckdb.DuckDBPyConnection, example_ids: Sequence[str]) -> None:
    """Says which examples go along."""
    connection.register(_POOL, pa.table({"example_id": pa.array(example_ids, pa.string())}))


def write_table(
    connection: duckdb.DuckDBPyConnection, table: Table, experiment: str, runs: Sequence[str], folder: Path
) -> int:
    """`tables/<name>.parquet`, in the order of its keys; no file where there are no rows. Returns their number.

    Args:
        connection: may write files (`connect(…, external=True)`), and knows the examples (`select_examples`).
    """
    columns = ", ".join(f'"{column.name}"' for column in table.all_columns)
    chosen = f"select {columns} from {table.name} where {_where(table, experiment, runs)}"
    (count,) = connection.execute(f"select count(*) from ({chosen})").fetchone() or (0,)
    if count:
        order = ", ".join(f'"{key}"' for key in table.order)
        path = folder / FOLDER / f"{table.name}.parquet"
        connection.execute(
            f"copy ({chosen} order by {order}) to {quoted(path)} "
            f"(format parquet, compression zstd, row_group_size {_ROW_GROUP})"
        )
    return int(count)


def _where(table: Table, experiment: str, runs: Sequence[str]) -> str:
    if table.per_run:
        return f"run in ({', '.join(quoted(run) for run in runs)})"
    if "experiment" in table.keys:
        return f"experiment = {quoted(experiment)}"
    return f"example_id in (select example_id from {_POOL})"


def read_tables(folder: Path) -> dict[str, pa.Table]:
    """The rows of a bundle, checked against the tables' descriptions.

    Raises:
        MechError: a table is unknown here, or rows do not fit its description.
    """
    found = {}
    for path in sorted((folder / FOLDER).glob("*.parquet")):
        if path.stem not in TABLES:
            raise MechError(f"table {path.stem} of bundle {folder} is unknown here", "install a newer mech-pipeline")
        try:
            found[path.stem] = check_rows(TABLES[path.stem], pq.read_table(path, partitioning=None))
        except (ValueError, pa.ArrowException) as error:
            raise MechError(
                f"table {path.stem} of bundle {folder}: {str(error).splitlines()[0]}", "install a newer mech-pipeline"
            ) from error
    return found


def write_rows(store: Store, name: str, rows: pa.Table, origin: str) -> None:
    """Rows of one table in place of what the store has of the same runs or experiment; examples are added.

    Args:
        origin: recorded with the commit as the code that made them.
    """
    table = TABLES[name]
    owner = "run" if table.per_run else "experiment"
    if owner in table.keys:
        store.write(name, rows, replace={owner: rows[owner].unique().to_pylist()}, code_version=origin)
    else:
        store.insert_new(name, rows, code_version=origin)
