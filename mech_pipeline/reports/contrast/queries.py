"""What is known of every example that an account speaks of: its total and its characteristics."""

import duckdb
import polars as pl

from mech_pipeline.frames import frame
from mech_pipeline.reports.influence.queries import TOTALS, subject_keys
from mech_pipeline.reports.subject import Account, Subject


def example_totals(connection: duckdb.DuckDBPyConnection, subject: Subject, account: Account) -> pl.DataFrame:
    """One row per example with a total before the target step, the largest first.

    example_id, total (ledger: unit of the mechanism; influence: per unit weight), kind, source, document, line, text,
    period and length (tokens), first_seen (update) and times_seen.
    """
    return frame(
        connection,
        f"""with totals as ({TOTALS[account]}),
        seen as (select example_id, min(update_step) as first_seen, count(*) as times_seen from batches
            where run = $run and update_step < $target group by example_id)
        select t.example_id, t.total, e.kind, e.source, e.document, e.line, e.text, e.period, e.n_tokens as length,
            s.first_seen, s.times_seen
        from totals t left join seen s using (example_id) left join examples e using (example_id)
        order by t.total desc, t.example_id""",
        **subject_keys(subject),
    )
