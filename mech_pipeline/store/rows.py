"""Rows before they are written: the description's columns and types, no nulls, finite numbers, unique keys, one order."""

import hashlib
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from mech_pipeline.store.tables.all import Column, Table


def check_rows(table: Table, rows: Mapping[str, Any] | pa.Table) -> pa.Table:
    """The rows as an Arrow table of exactly the described columns, sorted.

    Columns that may be empty and are left out get their default, or are empty.

    Raises:
        ValueError: empty, missing or unknown columns, wrong types, nulls, numbers that are not finite, repeated keys.
    """
    schema = table.schema
    rows = _completed(table, rows)
    given = set(rows.column_names if isinstance(rows, pa.Table) else rows)
    if given != set(schema.names):
        raise ValueError(f"table {table.name}: columns {sorted(given ^ set(schema.names))} are missing or unknown")
    if isinstance(rows, pa.Table):
        checked = rows.select(schema.names).cast(schema)
    else:
        checked = pa.table({name: rows[name] for name in schema.names}, schema=schema)
    if checked.num_rows == 0:
        raise ValueError(f"table {table.name}: refusing to write no rows")
    if faults := value_faults(table, checked):
        raise ValueError(f"table {table.name}: {faults[0]}")
    for column in table.columns:
        if column.default is not None and checked[column.name].null_count:
            raise ValueError(f"table {table.name}: column {column.name} has empty values; write {column.default!r}")
    # On one thread: workers share the cores already, and several threads take 2.5 times the work for it.
    distinct = checked.group_by(list(table.keys), use_threads=False).aggregate([]).num_rows
    if distinct != checked.num_rows:
        raise ValueError(f"table {table.name}: {checked.num_rows - distinct} rows repeat a key {table.keys}")
    return checked.sort_by([(key, "ascending") for key in table.order])


def _completed(table: Table, rows: Mapping[str, Any] | pa.Table) -> Mapping[str, Any] | pa.Table:
    """With the columns that may be left out."""
    given = rows.column_names if isinstance(rows, pa.Table) else list(rows)
    absent = [column for column in table.columns if column.nullable and column.name not in given]
    if not absent or not given:
        return rows
    count = rows.num_rows if isinstance(rows, pa.Table) else len(rows[given[0]])
    for column in absent:
        filled = pa.repeat(pa.scalar(column.default, table.schema.field(column.name).type), count)
        rows = rows.append_column(column.name, filled) if isinstance(rows, pa.Table) else {**rows, column.name: filled}
    return rows


def value_faults(table: Table, rows: pa.Table) -> list[str]:
    """Columns with empty values where none may be, or with numbers that are not finite."""
    import pyarrow.compute as pc  # a tenth of a second that only writing needs

    faults = []
    for column in table.all_columns:
        values = rows[column.name]
        if not column.nullable and values.null_count:
            faults.append(f"column {column.name} has {values.null_count} empty values")
        if (
            pa.types.is_floating(values.type)
            and not pc.all(pc.is_finite(values)).as_py()
            and values.null_count < len(values)
        ):
            faults.append(f"column {column.name} has values that are not finite")
    return faults


def content_version(table: Table, columns: Mapping[str, Any]) -> str:
    """SHA-256 of rows without provenance and the chance names of blobs: equal content, in any order, has equal versions.

    A column that came later has a part in it only where it holds more than its default, so that older cells keep theirs.
    """
    names = [c.name for c in table.columns if c.name != "uri" and not _says_nothing(c, columns.get(c.name))]
    schema = pa.schema([table.schema.field(name) for name in names])
    rows = pa.table({name: columns[name] for name in names}, schema=schema)
    return rows_sha256(rows.sort_by([(key, "ascending") for key in table.keys]))


def _says_nothing(column: Column, values: Any) -> bool:
    """Whether a column that came later is left out, or is its default everywhere."""
    if not column.came_later or values is None:
        return column.came_later
    held = pa.array(values) if isinstance(values, list) else values
    return held.unique().to_pylist() == [column.default]


def rows_sha256(rows: pa.Table) -> str:
    """SHA-256 of names and values, in the order they have."""
    digest = hashlib.sha256()
    rows = rows.combine_chunks()
    for name in rows.column_names:
        digest.update(name.encode())
        for value in rows[name].chunks:
            if pa.types.is_string(value.type):
                encoded = value.dictionary_encode()
                digest.update(repr(encoded.dictionary.to_pylist()).encode())
                value = encoded.indices
            elif pa.types.is_boolean(value.type):
                value = value.cast(pa.int8())
            if value.null_count:
                digest.update(repr(value.is_null().to_pylist()).encode())
            digest.update(value.fill_null(0).to_numpy(zero_copy_only=False).tobytes())
    return digest.hexdigest()
