"""Removals that were really retrained, beside what influence predicts for them.

The prediction for a removal is minus the influence of its examples, each times the weight it had, over all updates before
the target step. Changes are relative to a retraining that leaves out nothing. Both are in the unit of the mechanism.
"""

from collections.abc import Sequence

import duckdb
import polars as pl

from mech_pipeline.frames import frame


def removal_effects(
    connection: duckdb.DuckDBPyConnection, run: str, step: int, mechanism: str, method: str, names: Sequence[str]
) -> pl.DataFrame:
    """One row per removal in `names` that was retrained, in that order: removal, fraction, n_removed, predicted, change.

    `change` is empty where the retraining diverged.

    Args:
        connection: sees the tables `influence`, `removals` and `retrainings`.
        method: the estimator of influence.
        names: see `removals.asked_removals`; rows of removals that are no longer asked for stay out.
    """
    return frame(
        connection,
        """with totals as (
            select example_id, sum(weight::double * value) as total from influence
            where run = $run and step = $step and mechanism = $mechanism and method = $method group by example_id),
        predictions as (
            select removal, -sum(total) as predicted from removals left join totals using (example_id)
            where run = $run and step = $step group by removal)
        select removal, fraction, n_removed, coalesce(predicted, 0) as predicted, change
        from retrainings left join predictions using (removal)
        where run = $run and step = $step and mechanism = $mechanism and removal = any($names::varchar[])
        order by list_position($names::varchar[], removal)""",
        run=run,
        step=step,
        mechanism=mechanism,
        method=method,
        names=list(names),
    )


def lds_measures(connection: duckdb.DuckDBPyConnection, run: str, step: int) -> pl.DataFrame:
    """All rows of `lds` at a target step: mechanism, method, fraction, metric, value, lower, upper, n; the exact method first."""
    return frame(
        connection,
        """select mechanism, method, fraction, metric, value, lower, upper, n from lds
        where run = $run and step = $step order by mechanism, method <> 'adjoint', method, fraction, metric""",
        run=run,
        step=step,
    )
