"""Which examples are responsible, by ledger or by influence, and when influence may be trusted.

The ledger says what happened, in the unit of the mechanism; influence says what a small change of one example's
weight would do, in the unit of the mechanism per unit weight. The two never share a column here.
All sums are in double precision. Frames are empty (with their columns) when the store holds nothing for the run.
"""

from collections.abc import Sequence
from typing import Literal

import duckdb
import polars as pl

from mech_pipeline.frames import frame

Method = Literal["ledger", "influence"]

# A gradient of update s moves the mechanism in its own interval (value) and later, through momentum (value_later).
_TOTALS = {
    "ledger": """select example_id, sum(value::double + value_later::double) as total from ledger
        where run = $run and mechanism = $mechanism and term = 'example' and update_step < $target
        group by example_id""",
    "influence": """select example_id, sum(value::double) as total from influence
        where run = $run and mechanism = $mechanism and step = $target and method = 'adjoint' group by example_id""",
}
# Scores may be split by component.
_PAIRS = """select update_step, example_id, sum(value::double) as value, bool_and(reliable) as reliable from influence
    where run = $run and mechanism = $mechanism and step = $target and method = 'adjoint' group by 1, 2"""
KIND = "coalesce(e.kind, 'unknown kind')"


def attributed(connection: duckdb.DuckDBPyConnection, method: Method, runs: Sequence[str]) -> list[tuple[str, str]]:
    """The (run, mechanism) pairs among `runs` that have a ledger or an influence, in the order of `runs`."""
    pairs = frame(
        connection,
        f"""select run, mechanism from {method} where run = any($runs::varchar[]) group by 1, 2
        order by list_position($runs::varchar[], run), mechanism""",
        runs=list(runs),
    )
    return pairs.rows()


def target_step(connection: duckdb.DuckDBPyConnection, run: str, mechanism: str) -> int | None:
    """The step up to which examples are held responsible: that of the influence.

    Of several influence steps, one that is still a formation step of the run wins over one that no longer is, then the
    latest. Without influence: the formation step, and without that the last step of the ledger; none without either.
    """
    steps = frame(
        connection,
        """with formed as (select step from formation where run = $run and step is not null),
        candidates as (
            select step, 3 + (step in (from formed))::int as rank from influence
            where run = $run and mechanism = $mechanism and method = 'adjoint'
            union all select step, 2 from formation where run = $run and mechanism = $mechanism and step is not null
            union all select step, 1 from ledger where run = $run and mechanism = $mechanism)
        select step from candidates order by rank desc, step desc limit 1""",
        run=run,
        mechanism=mechanism,
    )
    return None if steps.is_empty() else int(steps.item())


def responsible_documents(
    connection: duckdb.DuckDBPyConnection, run: str, mechanism: str, method: Method, limit: int = 10
) -> pl.DataFrame:
    """The examples with the largest positive totals over the updates before the target step, largest first.

    `total` is the sum of value + value_later (ledger: what the example did, in the unit of the mechanism) or the sum
    of influence at the target step (per unit weight). `times_seen` counts updates before the target step.
    A gradient just before the target still acts after it through momentum; the ledger's total includes that tail.

    Args:
        method: which of the two; see `target_step` for the step.
    """
    return frame(
        connection,
        f"""with totals as ({_TOTALS[method]}),
        seen as (select example_id, count(*) as times_seen from batches
            where run = $run and update_step < $target group by example_id)
        select t.example_id, t.total, coalesce(s.times_seen, 0) as times_seen, e.kind, e.source, e.document, e.line,
            e.text, e.repeat_at
        from totals t left join seen s using (example_id) left join examples e using (example_id)
        order by t.total desc, t.example_id limit $limit""",
        run=run,
        mechanism=mechanism,
        target=_target(connection, run, mechanism),
        limit=limit,
    )


def influence_against_ledger(connection: duckdb.DuckDBPyConnection, run: str, mechanism: str) -> pl.DataFrame:
    """One row per example that has both totals before the target step: example_id, kind, ledger, influence."""
    return frame(
        connection,
        f"""with l as ({_TOTALS["ledger"]}), i as ({_TOTALS["influence"]})
        select example_id, {KIND} as kind, l.total as ledger, i.total as influence
        from l join i using (example_id) left join examples e using (example_id) order by example_id""",
        run=run,
        mechanism=mechanism,
        target=_target(connection, run, mechanism),
    )


def tiled_share_of_top(
    connection: duckdb.DuckDBPyConnection, run: str, mechanism: str, share: float = 0.05
) -> float | None:
    """Share of tiled examples among the top `share` of distinct examples by total influence; none without influence.

    At least one example counts as top. `share=1` gives the share among all examples, to compare with.
    """
    found = frame(
        connection,
        f"""with totals as ({_TOTALS["influence"]}),
        ranked as (select example_id, row_number() over (order by total desc, example_id) as place,
            count(*) over () as n from totals)
        select avg(({KIND} = 'tiled')::int) as share from ranked left join examples e using (example_id)
        where place <= greatest(1, round($share * n))""",
        run=run,
        mechanism=mechanism,
        target=_target(connection, run, mechanism),
        share=share,
    ).item()
    return None if found is None else float(found)


def influenced_examples(connection: duckdb.DuckDBPyConnection, run: str, mechanism: str) -> int:
    """How many distinct examples have an influence at the target step."""
    counted = frame(
        connection,
        f"select count(*) as n from ({_TOTALS['influence']})",
        run=run,
        mechanism=mechanism,
        target=_target(connection, run, mechanism),
    )
    return int(counted.item())


def influence_by_update(
    connection: duckdb.DuckDBPyConnection, run: str, mechanism: str, bins: int = 40
) -> pl.DataFrame:
    """Influence at the target step by when the example was seen: update_step (middle of the bin), kind, and the mean
    of |influence| and of influence over the n (example, update) pairs in it, per unit weight."""
    return frame(
        connection,
        f"""with width as (select greatest(1, ceil($target / $bins)) as w), pairs as ({_PAIRS})
        select (floor(i.update_step / w) + 0.5) * w as update_step, {KIND} as kind,
            avg(abs(i.value)) as mean_absolute, avg(i.value) as mean_signed, count(*) as n
        from pairs i cross join width left join examples e using (example_id) group by 1, 2 order by 2, 1""",
        run=run,
        mechanism=mechanism,
        target=_target(connection, run, mechanism),
        bins=bins,
    )


def adjoint_norms(connection: duckdb.DuckDBPyConnection, run: str, mechanism: str) -> pl.DataFrame:
    """L2 norm of the adjoint, swept backwards from the target step: update_step, value."""
    return frame(
        connection,
        """select update_step, value from reliability where run = $run and mechanism = $mechanism and step = $target
        and method = 'adjoint' and metric = 'adjoint_norm' and update_step >= 0 order by update_step""",
        run=run,
        mechanism=mechanism,
        target=_target(connection, run, mechanism),
    )


def reliability_measures(connection: duckdb.DuckDBPyConnection, run: str, mechanism: str) -> dict[str, float]:
    """The measures of the whole influence sweep by name (metasmoothness, reliable, …); the unmeasured are absent."""
    measures = frame(
        connection,
        """select metric, value from reliability
        where run = $run and mechanism = $mechanism and step = $target and method = 'adjoint' and update_step = -1
        order by metric""",
        run=run,
        mechanism=mechanism,
        target=_target(connection, run, mechanism),
    )
    return dict(measures.rows())


def flagged_scores(connection: duckdb.DuckDBPyConnection, run: str, mechanism: str) -> tuple[int, int]:
    """(scores that are marked unreliable, all scores) of the influence at the target step."""
    counted = frame(
        connection,
        f"select count(*) filter (reliable = false) as flagged, count(*) as n from ({_PAIRS})",
        run=run,
        mechanism=mechanism,
        target=_target(connection, run, mechanism),
    )
    flagged, total = counted.row(0)
    return int(flagged), int(total)


def estimator_agreement(connection: duckdb.DuckDBPyConnection, run: str, mechanism: str) -> pl.DataFrame:
    """Cheap estimators at the target step: method, agreement (rank correlation of example totals with the exact
    influence), its 95 % interval low and high, and n examples compared; agreement is empty where nothing is ranked."""
    return frame(
        connection,
        """select method, any_value(value) filter (metric = 'agreement') as agreement,
            any_value(value) filter (metric = 'agreement_lower') as low,
            any_value(value) filter (metric = 'agreement_upper') as high,
            coalesce(any_value(value) filter (metric = 'compared_examples'), 0)::int as n
        from reliability where run = $run and mechanism = $mechanism and step = $target and method <> 'adjoint'
        group by method order by agreement desc nulls last, method""",
        run=run,
        mechanism=mechanism,
        target=_target(connection, run, mechanism),
    )


def _target(connection: duckdb.DuckDBPyConnection, run: str, mechanism: str) -> int:
    step = target_step(connection, run, mechanism)
    return -1 if step is None else step
