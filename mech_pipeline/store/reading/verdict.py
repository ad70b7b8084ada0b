"""May influence be trusted? The one verdict that `influence.reliable` and the measure `reliable` show when they are read.

In this order: whether retraining confirmed it, for removals of every size that was tried often enough (table `lds`);
whether training is metasmooth (below METASMOOTH_LIMIT no estimator of influence is reliable); what was known when the
scores were made: the horizon of the adjoint, agreement of a cheap estimator with the exact one.

Rows keep what was known when they were made, because retraining comes later and a limit may be raised. A connection
looks up which of them were overruled, so no score is computed again for a verdict.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import duckdb

from mech_pipeline.statistics.verdict import FEWEST_REMOVALS, METASMOOTH_LIMIT

READ = ("influence", "reliability", "lds")
"""A connection that sees all of these shows the verdict, as every `connect` does; the pipeline's own, that see some, show
what rows say."""

_SHOWING = {"influence", "reliability"}


def with_verdict(tables: Iterable[str]) -> list[str]:
    """Some tables, and with one that shows the verdict also what decides it.

    >>> with_verdict(["runs"]), with_verdict(["influence", "runs"])
    (['runs'], ['influence', 'runs', 'reliability', 'lds'])
    """
    names = list(tables)
    return names + [each for each in READ if each not in names] if _SHOWING & set(names) else names


_OVERRULED = """
    with confirmed as (
        select run, step, mechanism, method, min(value) = 1 as reliable from {lds}
        where metric = 'reliable' and n >= $fewest group by all),
    measured as (
        select run, step, mechanism, method,
            any_value(value) filter (metric = 'reliable') as said,
            any_value(value) filter (metric = 'horizon_step') as horizon,
            any_value(value) filter (metric = 'metasmoothness_since') as since
        from {reliability} where update_step = -1 group by all),
    rough as (
        select run, step, mechanism from {reliability} where metric = 'metasmoothness' group by all having min(value) < $limit),
    unsaid as (
        select run, step, mechanism, method, false as reliable from measured join rough using (run, step, mechanism)
        anti join confirmed using (run, step, mechanism, method)
        where (said = 0 and horizon <= since) is not true)
    from confirmed union all from unsaid order by all"""


@dataclass(frozen=True)
class Overruled:
    """One estimator's scores on one target whose verdict is not what their rows say, or may not be."""

    run: str
    step: int
    mechanism: str
    method: str
    reliable: bool

    @property
    def condition(self) -> str:
        """SQL that is true of its rows."""
        names = {"run": self.run, "mechanism": self.mechanism, "method": self.method}
        doubled = {column: value.replace("'", "''") for column, value in names.items()}
        return " and ".join([f"step = {self.step}", *(f"{column} = '{value}'" for column, value in doubled.items())])


def overruled(connection: duckdb.DuckDBPyConnection, schema: str = "") -> list[Overruled]:
    """All of them.

    Args:
        connection: has views of READ as the rows are.
        schema: in which these lie, with a dot.
    """
    sql = _OVERRULED.format(lds=f"{schema}lds", reliability=f"{schema}reliability")
    return [
        Overruled(*row)
        for row in connection.execute(sql, {"limit": METASMOOTH_LIMIT, "fewest": FEWEST_REMOVALS}).fetchall()
    ]


def judged(found: list[Overruled], rows: dict[str, str]) -> Iterator[tuple[str, str]]:
    """The tables that show the verdict, and the SELECT of each.

    Args:
        rows: the SELECT behind each table, as its rows are.
    """
    if not found:
        return
    cases = " ".join(f"when {each.condition} then {str(each.reliable).lower()}" for each in found)
    yield "influence", f"select * replace (case {cases} else reliable end as reliable) from ({rows['influence']})"
    numbers = " ".join(f"when metric = 'reliable' and {each.condition} then {int(each.reliable)}" for each in found)
    yield "reliability", f"select * replace (case {numbers} else value end as value) from ({rows['reliability']})"
