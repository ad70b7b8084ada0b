"""`reports/index.html`: every experiment that has a report, how far its runs are, and when they formed."""

import duckdb

from mech_pipeline.frames import frame
from mech_pipeline.reports.page import environment


def index_page(connection: duckdb.DuckDBPyConnection) -> str:
    """The page; links are relative, so that it works wherever the folder lies.

    Args:
        connection: sees the tables `reports`, `runs` and `formation`.
    """
    found = frame(
        connection,
        """with named as (select distinct experiment from reports),
        events as (select r.experiment, f.mechanism, min(f.step) as first, max(f.step) as last, count(f.step) as formed,
            count(*) as n from formation f join runs r using (run) group by all),
        told as (select experiment, string_agg(mechanism || ': ' || formed || ' of ' || n || ' runs' ||
            case when formed > 0 then ', steps ' || first || ' to ' || last else '' end, '; ' order by mechanism) as formed
            from events group by 1),
        counted as (select experiment, count(*) as runs, count(*) filter (status = 'complete') as complete
            from runs group by 1)
        select experiment, coalesce(runs, 0) as runs, coalesce(complete, 0) as complete, coalesce(formed, '') as formed
        from named left join counted using (experiment) left join told using (experiment) order by experiment""",
    )
    return environment().get_template("index.html").render(rows=found.to_dicts())
