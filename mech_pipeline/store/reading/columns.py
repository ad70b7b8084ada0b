"""A query's columns in forms that others can hold: DuckDB has more types than polars, CSV, JSON and a terminal.

What a form cannot hold becomes DuckDB's own text for it (`3 days 04:00:00`, `a\\xFF`, `{'a': 1}`), decided by the column's type
and nowhere else, so that no value is lost, altered or refused on its way out.
"""

import json
from collections.abc import Callable, Iterator, Sequence

import duckdb
import polars as pl
from duckdb.sqltypes import DuckDBPyType

Shape = Callable[[duckdb.DuckDBPyRelation], pl.DataFrame]

_WHOLE = {"tinyint", "smallint", "integer", "bigint", "utinyint", "usmallint", "uinteger", "ubigint"}
_PLAIN = _WHOLE | {"boolean", "float", "double", "decimal", "varchar"}
_IN_FRAMES = _PLAIN | {
    *(
        "hugeint",
        "blob",
        "uuid",
        "enum",
        "null",
        "date",
        "time",
        "timestamp",
        "timestamp_s",
        "timestamp_ms",
        "timestamp_ns",
    ),
    *("timestamp with time zone",),
}


def in_frames(relation: duckdb.DuckDBPyRelation) -> pl.DataFrame:
    """Types stay wherever polars and Parquet have them, also inside lists, structs and maps."""
    wanted = [_held(kind) for kind in relation.types]
    if not any(wanted):
        return relation.pl()
    return _cast(relation, wanted).pl()


def as_text(relation: duckdb.DuckDBPyRelation) -> pl.DataFrame:
    """Numbers, truth values and texts as they are; everything else as text, for CSV and for people."""
    frame = _cast(relation, [None if kind.id in _PLAIN else "VARCHAR" for kind in relation.types]).pl()
    huge = [
        name for name, kind in zip(frame.columns, relation.types, strict=True) if kind.id == "hugeint"
    ]  # right-aligned as numbers are, and exact: a Decimal of polars ends at 38 digits
    return frame.with_columns(pl.col(huge).cast(pl.Int128)) if huge else frame


def as_json(relation: duckdb.DuckDBPyRelation) -> pl.DataFrame:
    """One column, a JSON object per row. What JSON has no number for (NaN, infinity) is null."""
    fields = ", ".join(f"{_name(name)} := #{place}" for place, name in enumerate(_distinct(relation.columns), start=1))
    frame = relation.project(f"cast(to_json(struct_pack({fields})) as varchar) as row").pl()
    return frame.with_columns(pl.col("row").map_elements(_standard, return_dtype=pl.String))


def _cast(relation: duckdb.DuckDBPyRelation, wanted: Sequence[str | None]) -> duckdb.DuckDBPyRelation:
    """Columns by place: two of the same name stay two."""
    columns = zip(relation.columns, wanted, strict=True)
    return relation.project(
        ", ".join(
            f"{f'cast(#{place} as {kind})' if kind else f'#{place}'} as {_name(name)}"
            for place, (name, kind) in enumerate(columns, start=1)
        )
    )


def _held(kind: DuckDBPyType) -> str | None:
    """The type that a column is cast to for a frame; none if it can stay."""
    if kind.id in ("list", "array", "struct", "map"):
        parts = dict(kind.children)
        inner = {name: _held(part) for name, part in parts.items() if isinstance(part, DuckDBPyType)}
        if not any(inner.values()):
            return None
        cast = {name: text or str(parts[name]) for name, text in inner.items()}
        if kind.id == "struct":
            return f"STRUCT({', '.join(f'{_name(name)} {text}' for name, text in cast.items())})"
        if kind.id == "map":
            return f"MAP({cast['key']}, {cast['value']})"
        return f"{cast['child']}[{parts['size'] if kind.id == 'array' else ''}]"
    return None if kind.id in _IN_FRAMES else "VARCHAR"


def _distinct(names: Sequence[str]) -> Iterator[str]:
    """Names that SQL tells apart, which does not look at the case: a, a → a, a_1."""
    seen: set[str] = set()
    for name in names:
        candidates = (name, *(f"{name}_{number}" for number in range(1, len(names) + 1)))
        free = next(candidate for candidate in candidates if candidate.lower() not in seen)
        seen.add(free.lower())
        yield free


def _standard(row: str) -> str:
    if "NaN" not in row and "Infinity" not in row:
        return row
    return json.dumps(json.loads(row, parse_constant=lambda name: None), ensure_ascii=False)


def _name(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'
