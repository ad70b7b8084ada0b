"""Which examples are responsible, by ledger or by influence, and when influence may be trusted.

The ledger says what happened; influence says what the mechanism would lose without an example: the derivative by its
weight, times the weight it has. Both are in the unit of the mechanism, and never share a column here.
All sums are in double precision. Frames are empty (with their columns) when the store holds nothing for the run.
"""

import duckdb
import polars as pl

from mech_pipeline.frames import frame
from mech_pipeline.reports.subject import Account, Subject

# A gradient of update s moves the mechanism in its own interval (value) and later, through momentum (value_later).
TOTALS = {
    "ledger": """select example_id, sum(value::double + value_later::double) as total from ledger
        where run = $run and mechanism = $mechanism and term = 'example' and update_step < $target
        group by example_id""",
    "influence": """select example_id, sum(weight::double * value) as total from influence
        where run = $run and mechanism = $mechanism and step = $target and method = 'adjoint' group by example_id""",
}
# Scores may be split by component.
_PAIRS = """select update_step, example_id, sum(value::double) as value, bool_and(reliable) as reliable from influence
    where run = $run and mechanism = $mechanism and step = $target and method = 'adjoint' group by 1, 2"""
KIND = "coalesce(e.kind, 'unknown kind')"


def subject_keys(subject: Subject) -> dict[str, str | int]:
    """The parameters that name a subject in a query."""
    return {"run": subject.run, "mechanism": subject.mechanism, "target": subject.target}


def responsible_documents(
    connection: duckdb.DuckDBPyConnection, subject: Subject, account: Account, limit: int = 10
) -> pl.DataFrame:
    """The examples with the largest positive totals over the updates before the target step, largest first.

    `total` is the sum of value + value_later (ledger: what the example did, in the unit of the mechanism) or the sum
    of weight times influence at the target step (what it is predicted to lose without the example).
    `times_seen` counts updates before the target step.
    A gradient just before the target still acts after it through momentum; the ledger's total includes that tail.

    Args:
        account: which of the two.
    """
    return frame(
        connection,
        f"""with totals as ({TOTALS[account]}),
        seen as (select example_id, count(*) as times_seen from batches
            where run = $run and update_step < $target group by example_id)
        select t.example_id, t.total, coalesce(s.times_seen, 0) as times_seen, e.kind, e.source, e.document, e.line,
            e.text, e.repeat_at
        from totals t left join seen s using (example_id) left join examples e using (example_id)
        order by t.total desc, t.example_id limit $limit""",
        **subject_keys(subject),
        limit=limit,
    )


def influence_against_ledger(connection: duckdb.DuckDBPyConnection, subject: Subject) -> pl.DataFrame:
    """One row per example that has both totals before the target step: example_id, kind, ledger, influence."""
    return frame(
        connection,
        f"""with l as ({TOTALS["ledger"]}), i as ({TOTALS["influence"]})
        select example_id, {KIND} as kind, l.total as ledger, i.total as influence
        from l join i using (example_id) left join examples e using (example_id) order by example_id""",
        **subject_keys(subject),
    )


def kind_shares(connection: duckdb.DuckDBPyConnection, subject: Subject, share: float = 0.05) -> pl.DataFrame:
    """Which kinds of examples are at both ends of influence: kind, n, top, bottom and everything, the largest top first.

    `top` is the kind's share among the `share` of distinct examples with the largest total influence (at least one
    example), `bottom` among as many with the smallest, which hold the mechanism back, `everything` among all n examples
    that have an influence: what both would be if kinds did not matter.
    """
    return frame(
        connection,
        f"""with totals as ({TOTALS["influence"]}),
        sized as (select *, greatest(1, round($share * count(*) over ())) as size from totals),
        ranked as (select example_id, row_number() over (order by total desc, example_id) <= size as is_top,
            row_number() over (order by total, example_id) <= size as is_bottom from sized),
        counted as (select {KIND} as kind, count(*) as n, count(*) filter (is_top) as n_top,
                count(*) filter (is_bottom) as n_bottom
            from ranked left join examples e using (example_id) group by 1)
        select kind, n, n_top / sum(n_top) over () as top, n_bottom / sum(n_bottom) over () as bottom,
            n / sum(n) over () as everything
        from counted order by top desc, everything desc, kind""",
        **subject_keys(subject),
        share=share,
    )


def influenced_examples(connection: duckdb.DuckDBPyConnection, subject: Subject) -> int:
    """How many distinct examples have an influence at the target step."""
    counted = frame(
        connection,
        f"select count(*) as n from ({TOTALS['influence']})",
        **subject_keys(subject),
    )
    return int(counted.item())


def influence_by_update(connection: duckdb.DuckDBPyConnection, subject: Subject, bins: int = 40) -> pl.DataFrame:
    """Influence at the target step by when the example was seen: update_step (middle of the bin), kind, and the mean
    of |influence| and of influence over the n (example, update) pairs in it, per unit weight."""
    return frame(
        connection,
        f"""with width as (select greatest(1, ceil($target / $bins)) as w), pairs as ({_PAIRS})
        select (floor(i.update_step / w) + 0.5) * w as update_step, {KIND} as kind,
            avg(abs(i.value)) as mean_absolute, avg(i.value) as mean_signed, count(*) as n
        from pairs i cross join width left join examples e using (example_id) group by 1, 2 order by 2, 1""",
        **subject_keys(subject),
        bins=bins,
    )


def adjoint_norms(connection: duckdb.DuckDBPyConnection, subject: Subject) -> pl.DataFrame:
    """L2 norm of the adjoint, swept backwards from the target step: update_step, value."""
    return frame(
        connection,
        """select update_step, value from reliability where run = $run and mechanism = $mechanism and step = $target
        and method = 'adjoint' and metric = 'adjoint_norm' and update_step >= 0 order by update_step""",
        **subject_keys(subject),
    )


def reliability_measures(connection: duckdb.DuckDBPyConnection, subject: Subject) -> dict[str, float]:
    """The measures of the whole influence sweep by name (metasmoothness, reliable, …); the unmeasured are absent."""
    measures = frame(
        connection,
        """select metric, value from reliability
        where run = $run and mechanism = $mechanism and step = $target and method = 'adjoint' and update_step = -1
        order by metric""",
        **subject_keys(subject),
    )
    return dict(measures.rows())


def flagged_scores(connection: duckdb.DuckDBPyConnection, subject: Subject) -> tuple[int, int]:
    """(scores that are marked unreliable, all scores) of the influence at the target step."""
    counted = frame(
        connection,
        f"select count(*) filter (reliable = false) as flagged, count(*) as n from ({_PAIRS})",
        **subject_keys(subject),
    )
    flagged, total = counted.row(0)
    return int(flagged), int(total)


def estimator_agreement(connection: duckdb.DuckDBPyConnection, subject: Subject) -> pl.DataFrame:
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
        **subject_keys(subject),
    )
