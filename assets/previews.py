"""What the UI shows of a partition: its numbers, the query that finds its rows, and for assets of few partitions the first."""

from collections.abc import Iterable
from typing import Any

import dagster as dg

from mech_pipeline.pipeline.stages import output_of
from mech_pipeline.store.store import Store

_STEPS = "(select unnest($steps))"
_LONGEST = 20


def _sql(asset: str) -> str:
    """The query for an asset's rows; `$run` is the run, `$$` its steps."""
    output = output_of(asset)
    return output.rows or f"select * from {output.table} where run = $run and step in $$ limit {_LONGEST}"


def query_of(asset: str, run: str, step: int | None = None) -> dict[str, Any]:
    """How to find these rows again on the command line."""
    sql = _sql(asset).replace("$run", f"'{run}'").replace("in $$", f"= {step}")
    assert not set(sql) & set('"$`\\'), "the query is shown in double quotes, to be read and pasted"
    return {"SQL": dg.MetadataValue.text(f'mech sql "{sql}"')}


def rows_of_run(store: Store, asset: str, run: str) -> dict[str, Any]:
    """Query and first rows of a whole run."""
    return {**query_of(asset, run), **_table(_read(store, asset, {"run": run}))}


def rows_of_steps(store: Store, asset: str, run: str, steps: Iterable[int]) -> dict[int, dict[str, Any]]:
    """Query and first rows of each step, read in one go."""
    steps = list(steps)
    found: dict[int, list[dict[str, Any]]] = {step: [] for step in steps}
    for row in _read(store, asset, {"run": run, "steps": steps}):
        found[row.pop("step")].append(row)
    return {step: {**query_of(asset, run, step), **_table(rows)} for step, rows in found.items()}


def _read(store: Store, asset: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
    output = output_of(asset)
    assert output.table is not None, "an asset with rows has a table"
    with store.reading(output.table, "examples", of=[parameters["run"]]) as connection:
        return connection.sql(_sql(asset).replace("$$", _STEPS), params=parameters).pl().to_dicts()


def _table(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Nothing where there are no rows: Dagster infers the columns from the first one."""
    if not rows:
        return {}
    records = [dg.TableRecord({name: _cell(value) for name, value in row.items()}) for row in rows[:_LONGEST]]
    return {"first rows": dg.MetadataValue.table(records)}


def readable(value: Any) -> Any:
    """A number to five digits; anything else as it is.

    >>> readable(0.12345678901234567), readable(3), readable("text")
    (0.12346, 3, 'text')
    """
    return float(f"{value:.5g}") if isinstance(value, float) else value


def _cell(value: Any) -> str | float | int | bool:
    """A value as the UI can show it: texts on one line, numbers to a few digits."""
    if isinstance(value, float):
        return readable(value)
    if isinstance(value, str):
        line = " ".join(value.split())
        return line if len(line) <= 80 else f"{line[:79]}…"
    return "" if value is None else value
