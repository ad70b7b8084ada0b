"""The ledger: what happened to a mechanism, by term, component and kind of document, and whether it balances.

Running sums use `value` alone, the stepwise balance: what acted inside each interval between checkpoints. What an
example did later through momentum appears there as the line "momentum", so the lines sum to the true change.
Values are in the unit of the mechanism. Frames are empty (with their columns) when the store holds nothing.
"""

from collections.abc import Sequence

import duckdb
import polars as pl

from mech_pipeline.frames import frame
from mech_pipeline.reports.influence.queries import KIND

# L0H1.Q, .K, .V and .O are one head, L0.MLP.in and .out one MLP.
COMPONENT_GROUP = r"regexp_replace(l.component, '^(L\d+(H\d+|\.MLP))\..*$', '\1')"
OTHER_TERMS = ("weight decay", "momentum", "replay mismatch")
"""What no example did, as groups; the last one is of runs from outside alone."""
# Lines start at 0 where the first interval of the ledger starts: the evaluation before it.
_START = """coalesce((select max(step) from mechanism_values
    where run = $run and mechanism = $mechanism and step < first), 0)"""


def ledger_totals(connection: duckdb.DuckDBPyConnection, run: str, mechanism: str) -> pl.DataFrame:
    """The whole run's ledger by term and kind of document, in the unit of the mechanism.

    `value` over all rows sums to the change of the mechanism. `value_later` sums to the momentum row, so counting
    examples by value + value_later and leaving momentum out sums to the change as well.
    """
    totals = frame(
        connection,
        f"""select l.term, case when l.term = 'example' then {KIND} end as kind, sum(l.value::double) as value,
            sum(l.value_later::double) as value_later, count(distinct l.example_id) as n_examples
        from ledger l left join examples e using (example_id)
        where l.run = $run and l.mechanism = $mechanism group by 1, 2""",
        run=run,
        mechanism=mechanism,
    )
    return totals.sort(pl.col("kind").is_null(), pl.col("value"), descending=[False, True])


def balance(connection: duckdb.DuckDBPyConnection, runs: Sequence[str]) -> pl.DataFrame:
    """The ledger's checks over each run: one row per run and mechanism.

    `change` and `explained` are sums over the partitions (unit of the mechanism); `imbalance` is
    |explained − change| / |change| (none if nothing changed); the two errors are the largest of any partition.
    """
    return frame(
        connection,
        """select run, mechanism, count(*) as n_partitions, sum(change) as change, sum(explained) as explained,
            sum(gross) as gross, abs(sum(explained) - sum(change)) / nullif(abs(sum(change)), 0) as imbalance,
            max(update_error) as update_error, max(example_error) as example_error
        from ledger_balance where run = any($runs::varchar[]) group by run, mechanism
        order by list_position($runs::varchar[], run), mechanism""",
        runs=list(runs),
    )


def ledger_by_component(
    connection: duckdb.DuckDBPyConnection, run: str, mechanism: str, limit: int = 10
) -> pl.DataFrame:
    """Cumulative contribution of examples by head or other component, with the other terms as groups of their own.

    Columns step (updates), group, value (unit of the mechanism). The `limit` groups with the largest excursion keep
    their name, the rest is "other"; what examples did not do always keeps its own. At every step the groups sum to
    what the ledger explains.
    """
    cumulative = _cumulative(connection, run, mechanism, COMPONENT_GROUP)
    terms = list(OTHER_TERMS)
    excursions = cumulative.filter(~pl.col("group").is_in(terms)).group_by("group").agg(pl.col("value").abs().max())
    largest = excursions.sort(["value", "group"], descending=[True, False])["group"].head(limit).to_list()
    order = pl.Enum([*largest, "other", *terms])
    named = pl.when(pl.col("group").is_in([*largest, *terms])).then("group").otherwise(pl.lit("other"))
    summed = cumulative.group_by("step", named.cast(order).alias("group")).agg(pl.col("value").sum())
    return summed.sort("group", "step").select("step", pl.col("group").cast(pl.String), "value")


def ledger_by_kind(connection: duckdb.DuckDBPyConnection, run: str, mechanism: str) -> pl.DataFrame:
    """As `ledger_by_component`, by kind of document, with weight decay and momentum as groups of their own."""
    return _cumulative(connection, run, mechanism, KIND)


def ledger_change(connection: duckdb.DuckDBPyConnection, run: str, mechanism: str) -> pl.DataFrame:
    """The true change of the mechanism since the ledger began: step (updates), value (unit of the mechanism)."""
    return frame(
        connection,
        f"""select {_START} as step, 0::double as value
        from (select min(step) as first from ledger_balance where run = $run and mechanism = $mechanism)
        where first is not null
        union all
        select step, sum(change) over (order by step) from ledger_balance where run = $run and mechanism = $mechanism
        order by step""",
        run=run,
        mechanism=mechanism,
    )


def _cumulative(connection: duckdb.DuckDBPyConnection, run: str, mechanism: str, group: str) -> pl.DataFrame:
    """Running sums of the ledger's values per group of example terms, every group at every step, from 0."""
    return frame(
        connection,
        f"""with sums as (
            select l.step, sum(l.value::double) as value,
                case when l.term = 'example' then {group} else replace(l.term, '_', ' ') end as "group"
            from ledger l left join examples e using (example_id)
            where l.run = $run and l.mechanism = $mechanism group by all
        ), first as (select min(step) as first from sums),
        steps as (select distinct step from sums union all select {_START} from first where first is not null),
        grid as (select s.step, g."group" from steps s cross join (select distinct "group" from sums) g)
        select step, "group", sum(coalesce(value, 0)) over (partition by "group" order by step) as value
        from grid left join sums using (step, "group") order by "group", step""",
        run=run,
        mechanism=mechanism,
    )
