"""Two sets of runs side by side: what was asked for, when mechanisms formed, where they ended."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import mean
from typing import Any

import duckdb

from mech_pipeline.errors import MechError, did_you_mean

_IDENTITY = {"run", "experiment", "arm", "seed", "question", "home"}


@dataclass(frozen=True)
class Side:
    """Some runs.

    Attributes:
        spec: of the first of them.
        formed: by event, the step in each run that formed, and how many did.
        values: by mechanism, the value at each run's last checkpoint: mean, and range over several runs.
    """

    runs: tuple[str, ...]
    spec: dict[str, Any]
    formed: dict[str, str]
    values: dict[str, str]


def compared(connection: duckdb.DuckDBPyConnection, name: str) -> Side:
    """The runs that a name stands for: a run, an arm (`experiment.arm`), or all runs of an experiment.

    Raises:
        MechError: it stands for none.
    """
    rows = connection.execute(
        "select run, spec from runs where $1 in (run, experiment || '.' || arm, experiment) order by arm, seed", [name]
    ).fetchall()
    if not rows:
        known = connection.execute(
            "select distinct unnest([run, experiment || '.' || arm, experiment]) as name from runs order by 1"
        ).fetchall()
        near = did_you_mean(name, [each for (each,) in known])
        raise MechError(f"there is no run, arm or experiment {name!r}", f"{near}`mech ls` lists them")
    runs = [run for run, _ in rows]
    return Side(tuple(runs), json.loads(rows[0][1]), _formed(connection, runs), _values(connection, runs))


def spec_differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Fields whose values differ, by dotted name; what only names a run is left out.

    >>> spec_differences({"seed": 0, "data": {"plain": 0.25, "held": 1}}, {"seed": 1, "data": {"plain": 1.0, "held": 1}})
    {'data.plain': (0.25, 1.0)}
    """
    left, right = _flat(first), _flat(second)
    names = [name for name in {**left, **right} if name not in _IDENTITY]
    return {name: (left.get(name), right.get(name)) for name in names if left.get(name) != right.get(name)}


def _flat(fields: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in fields.items():
        found |= _flat(value, f"{before}{name}.") if isinstance(value, dict) else {before + name: value}
    return found


def _formed(connection: duckdb.DuckDBPyConnection, runs: list[str]) -> dict[str, str]:
    rows = connection.execute(
        "select mechanism, list(step order by step) filter (step is not null), count(*) from formation "
        "where list_contains(?, run) group by mechanism order by mechanism",
        [runs],
    ).fetchall()
    return {name: _steps(steps or [], count) for name, steps, count in rows}


def _steps(steps: list[int], runs: int) -> str:
    """
    >>> _steps([870], 1), _steps([860, 880], 3), _steps([], 2)
    ('870', '860, 880 (2 of 3 runs)', 'never')
    """
    if not steps:
        return "never"
    listed = ", ".join(map(str, steps))
    return listed if runs == 1 else f"{listed} ({len(steps)} of {runs} runs)"


def _values(connection: duckdb.DuckDBPyConnection, runs: list[str]) -> dict[str, str]:
    rows = connection.execute(
        "select mechanism, list(value order by value) from (select run, mechanism, arg_max(value, step) as value "
        "from mechanism_values where list_contains(?, run) group by all) group by mechanism order by mechanism",
        [runs],
    ).fetchall()
    return {name: _range(values) for name, values in rows}


def _range(values: list[float]) -> str:
    """
    >>> _range([1.5]), _range([1.0, 2.0])
    ('1.5', '1.5 (1 to 2)')
    """
    if len(values) == 1:
        return f"{values[0]:.4g}"
    return f"{mean(values):.4g} ({values[0]:.4g} to {values[-1]:.4g})"
