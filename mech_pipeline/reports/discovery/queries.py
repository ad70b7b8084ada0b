"""What the report asks the store of discoveries."""

from collections.abc import Sequence

import duckdb
import polars as pl

from mech_pipeline.frames import frame

_EXAMPLES = 6
_LOOKING = "(component like '%.Q' or component like '%.K')"


def found_clusters(connection: duckdb.DuckDBPyConnection, runs: Sequence[str]) -> pl.DataFrame:
    """One row per run and cluster, most gained by looking first, with tokens whose loss fell furthest."""
    return frame(
        connection,
        """with placed as (
            select *, row_number() over (partition by run, cluster order by loss_first - loss_last desc, probe_token) as place
            from discovery_tokens where cluster is not null and run = any($runs::varchar[])),
        shown as (
            select run, cluster, list({'before': "before", 'text': text} order by place) as examples
            from placed where place <= $examples group by run, cluster),
        kinds as (
            select run, cluster, string_agg(kind || ' ' || n, ', ' order by n desc, kind) as kinds
            from (select run, cluster, kind, count(*) as n from placed group by all) group by run, cluster)
        select * from discoveries join shown using (run, cluster) join kinds using (run, cluster)
        order by list_position($runs::varchar[], run), cluster""",
        runs=list(runs),
        examples=_EXAMPLES,
    )


def cluster_curves(connection: duckdb.DuckDBPyConnection, run: str) -> pl.DataFrame:
    """Mean loss of every cluster of a run at every checkpoint; cluster empty: of all probe tokens."""
    return frame(
        connection,
        """with losses as (
            select step, probe_token, loss from token_losses where run = $run
            union all
            select 0, probe_token, loss_first from discovery_tokens where run = $run)
        select cluster, step, avg(loss) as loss from losses
        join discovery_tokens t on t.run = $run and t.probe_token = losses.probe_token
        where cluster is not null group by all
        union all select null, step, avg(loss) from losses group by step order by cluster nulls last, step""",
        run=run,
    )


def courses_of(connection: duckdb.DuckDBPyConnection, run: str) -> pl.DataFrame:
    """One row per cluster by needs, measure and checkpoint (the table `cluster_courses`)."""
    return frame(
        connection,
        "select cluster, step, measure, value from cluster_courses where run = $run order by cluster, measure, step",
        run=run,
    )


def token_map(connection: duckdb.DuckDBPyConnection, run: str) -> pl.DataFrame:
    """One row per probe token: what it lost through queries and keys, what through all else, and its cluster."""
    return frame(
        connection,
        f"""select cluster, moved.* exclude (probe_token) from (
            select probe_token, -sum(value::double) filter ({_LOOKING}) as looking,
                -sum(value::double) filter (not {_LOOKING}) as otherwise
            from token_movement where run = $run group by probe_token) moved
        join discovery_tokens t on t.run = $run and t.probe_token = moved.probe_token order by moved.probe_token""",
        run=run,
    )
