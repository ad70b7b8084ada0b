"""Formation: the frames behind the results and the curves of a report; see also the queries of the other topics.

Every function takes a connection from `store.reading.connect` and returns a polars frame, which is empty (with its
columns) when the store holds nothing for what was asked. Runs are named by id, so that what an older version of the
experiment left in the store stays out.
"""

from collections.abc import Sequence

import duckdb
import polars as pl

from mech_pipeline.frames import frame
from mech_pipeline.statistics.intervals import mean_sd, t_interval

RESULT_COLUMNS: dict[str, pl.DataType | type[pl.DataType]] = {
    "arm": pl.String,
    "n_seeds": pl.Int64,
    "seeds": pl.List(pl.Int64),
    "steps": pl.List(pl.Int64),
    "lowers": pl.List(pl.Int64),
    "n_formed": pl.Int64,
    "n_censored": pl.Int64,
    "step_mean": pl.Float64,
    "step_sd": pl.Float64,
    "step_low": pl.Float64,
    "step_high": pl.Float64,
    "value_mean": pl.Float64,
    "value_sd": pl.Float64,
    "head_mean": pl.Float64,
    "head_sd": pl.Float64,
}


def mechanism_curves(connection: duckdb.DuckDBPyConnection, runs: Sequence[str]) -> pl.DataFrame:
    """Every evaluation: run, arm, seed, mechanism, step (updates), value (unit of the mechanism)."""
    return frame(
        connection,
        """select v.run, r.arm, r.seed, v.mechanism, v.step, v.value
        from mechanism_values v join runs r using (run)
        where v.run = any($runs::varchar[])
        order by list_position($runs::varchar[], v.run), v.mechanism, v.step""",
        runs=list(runs),
    )


def signal_curves(connection: duckdb.DuckDBPyConnection, runs: Sequence[str], signal: str) -> pl.DataFrame:
    """As `mechanism_curves`, of one signal: a mechanism, or `best_head:<detector>`, the largest score of any head."""
    return frame(
        connection,
        """with signals as (
            select run, step, value from mechanism_values where mechanism = $signal and run = any($runs::varchar[])
            union all
            select run, step, max(value) from head_scores
            where 'best_head:' || detector = $signal and run = any($runs::varchar[]) group by run, step)
        select s.run, r.arm, r.seed, $signal as mechanism, s.step, s.value from signals s join runs r using (run)
        order by list_position($runs::varchar[], s.run), s.step""",
        runs=list(runs),
        signal=signal,
    )


def formation_events(connection: duckdb.DuckDBPyConnection, runs: Sequence[str]) -> pl.DataFrame:
    """Every formation event: run, arm, seed, mechanism (the signal), step, lower (updates), threshold, censored."""
    return frame(
        connection,
        """select f.run, r.arm, r.seed, f.mechanism, f.step, f.lower, f.threshold, f.sustain, f.censored
        from formation f join runs r using (run)
        where f.run = any($runs::varchar[])
        order by list_position($runs::varchar[], f.run), f.mechanism""",
        runs=list(runs),
    )


def results_per_run(
    connection: duckdb.DuckDBPyConnection, runs: Sequence[str], signal: str, detector: str | None = None
) -> pl.DataFrame:
    """One row per evaluated run: formation step, and value of the signal and of the best head at its last evaluation.

    Args:
        signal: a mechanism, or `best_head:<detector>`, as the table `formation` names it.
        detector: whose best head is reported beside it; none: no head is.
    """
    return frame(
        connection,
        """with signals as (
            select run, step, value from mechanism_values where mechanism = $signal and run = any($runs::varchar[])
            union all
            select run, step, max(value) from head_scores
            where 'best_head:' || detector = $signal and run = any($runs::varchar[]) group by run, step
        ), heads as (
            select run, step, max(value) as value from head_scores
            where detector = $detector and run = any($runs::varchar[]) group by run, step
        ), last_signal as (select run, arg_max(value, step) as final_value from signals group by run),
        last_head as (select run, arg_max(value, step) as best_head from heads group by run),
        event as (select run, step, lower, censored from formation where mechanism = $signal)
        select r.run, r.arm, r.seed, e.step, e.lower, e.censored, s.final_value, h.best_head
        from runs r left join event e using (run) left join last_signal s using (run) left join last_head h using (run)
        where r.run = any($runs::varchar[]) and coalesce(e.lower, s.final_value, h.best_head) is not null
        order by list_position($runs::varchar[], r.run)""",
        runs=list(runs),
        signal=signal,
        detector=detector,
    )


def results_table(
    connection: duckdb.DuckDBPyConnection, runs: Sequence[str], signal: str, detector: str | None = None
) -> pl.DataFrame:
    """One row per arm, in the order of `runs`; sd is the sample standard deviation over seeds (none below 2 seeds).

    `step_mean`, `step_sd` and the 95 % t-interval of the mean [`step_low`, `step_high`] are over the seeds that
    formed. Censored seeds are counted, not averaged: where there are any, the mean is too early.
    `steps` and `lowers` are per seed, beside `seeds`; a step of none is a censored or not yet evaluated seed.
    """
    per_run = results_per_run(connection, runs, signal, detector)
    rows = [_arm_row(str(key[0]), part) for key, part in per_run.group_by(["arm"], maintain_order=True)]
    return pl.DataFrame(rows, schema=RESULT_COLUMNS)


def _arm_row(arm: str, part: pl.DataFrame) -> dict[str, object]:
    steps = [float(step) for step in part["step"].drop_nulls()]
    step_mean, step_sd = mean_sd(steps)
    step_low, step_high = t_interval(steps)
    value_mean, value_sd = mean_sd(part["final_value"].drop_nulls().to_list())
    head_mean, head_sd = mean_sd(part["best_head"].drop_nulls().to_list())
    return {
        "arm": arm,
        "n_seeds": part.height,
        "seeds": part["seed"].to_list(),
        "steps": part["step"].to_list(),
        "lowers": part["lower"].to_list(),
        "n_formed": len(steps),
        "n_censored": int(part["censored"].sum()),
        "step_mean": step_mean,
        "step_sd": step_sd,
        "step_low": step_low,
        "step_high": step_high,
        "value_mean": value_mean,
        "value_sd": value_sd,
        "head_mean": head_mean,
        "head_sd": head_sd,
    }
