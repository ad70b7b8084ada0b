"""What the store holds of an experiment's comparisons."""

import duckdb
import polars as pl

from mech_pipeline.causal.survival import Formed
from mech_pipeline.frames import frame
from mech_pipeline.reports.subject import Study


def comparisons(study: Study, mechanism: str) -> pl.DataFrame:
    """Rows of `comparisons` on one watched value."""
    return _of_experiment(study, "comparisons", mechanism)


def arms(study: Study, mechanism: str) -> pl.DataFrame:
    """Rows of `arms` on one watched value."""
    return _of_experiment(study, "arms", mechanism)


def predictions(study: Study) -> pl.DataFrame:
    """Rows of `predictions`."""
    return frame(
        study.connection, "from predictions where experiment = $name order by all", name=study.experiment.experiment
    )


def measures(study: Study, mechanism: str) -> pl.DataFrame:
    """Rows of `causal_measures` on one mechanism."""
    return _of_experiment(study, "causal_measures", mechanism)


def stopped_before(study: Study) -> pl.DataFrame:
    """How many runs stopped before the step at which influence predicts, by mechanism and method."""
    sql = "from causal_measures where experiment = $name and metric = 'stopped_before' order by all"
    return frame(study.connection, sql, name=study.experiment.experiment)


def _of_experiment(study: Study, table: str, mechanism: str) -> pl.DataFrame:
    sql = f"select * from {table} where experiment = $name and mechanism = $mechanism"
    return frame(study.connection, sql, name=study.experiment.experiment, mechanism=mechanism)


def formed(study: Study, mechanism: str) -> dict[str, list[Formed]]:
    """When each run formed, by arm in the order of the file."""
    arms_of = {spec.run: (spec.arm, spec.seed) for spec in study.specs}
    rows = frame(
        study.connection,
        'select run, "lower", step from formation where mechanism = $mechanism and run = any($runs::varchar[]) order by run',
        mechanism=mechanism,
        runs=study.runs,
    )
    found: dict[str, list[Formed]] = {name: [] for name in study.experiment.arms}
    for run, lower, step in rows.rows():
        arm, seed = arms_of[run]
        found[arm].append(Formed(seed, lower, step))
    return found


def balances(connection: duckdb.DuckDBPyConnection, runs: list[str]) -> pl.DataFrame:
    """One row per matched arm and characteristic: mean differences over its runs, and the largest."""
    return frame(
        connection,
        """select r.arm, b.characteristic, count(*) as runs, avg(b.before) as before, avg(b.difference) as difference,
            max(abs(b.difference)) as largest
        from choice_balance b join runs r using (run) where run = any($runs::varchar[])
        group by all order by list_position($runs::varchar[], min(run)), characteristic""",
        runs=runs,
    )
