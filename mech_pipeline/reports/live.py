"""All runs of an experiment side by side, as the store has them now: for people who watch while they train.

Loss, and what the formation events watch, over training; one line per run, colour by arm. Drawn in a second.
"""

import duckdb
import polars as pl
from matplotlib.figure import Figure

from mech_pipeline.frames import frame
from mech_pipeline.reports.formation.figures import formation_curves
from mech_pipeline.reports.formation.queries import formation_events, signal_curves
from mech_pipeline.reports.wording import signal_unit
from mech_pipeline.spec.run import RunSpec

TABLES = ("runs", "training_metrics", "mechanism_values", "head_scores", "formation")
LOSS = "loss"
_POINTS = 300
_INCHES = 5.0
"""What fits beside the names in Dagster's tables."""


def live_figure(connection: duckdb.DuckDBPyConnection, experiment: str) -> Figure | None:
    """Curves of an experiment; none while nothing of it is trained.

    Args:
        connection: with views of `TABLES`.
    """
    rows = connection.execute("select spec from runs where experiment = ? order by arm, seed", [experiment]).fetchall()
    specs = [RunSpec.model_validate_json(spec) for (spec,) in rows]
    if not specs:
        return None
    runs = [spec.run for spec in specs]
    signals = list(dict.fromkeys(event.signal for spec in specs for event in spec.formation))
    curves = [loss_curves(connection, runs), *(signal_curves(connection, runs, signal) for signal in signals)]
    names = [LOSS, *signals]
    units = {name: _unit(name) for name, found in zip(names, curves, strict=True) if not found.is_empty()}
    if not units:
        return None
    there = pl.concat([found for found in curves if not found.is_empty()], how="vertical_relaxed")
    return formation_curves(there, formation_events(connection, runs), units, _INCHES, columns=2)


def loss_curves(connection: duckdb.DuckDBPyConnection, runs: list[str]) -> pl.DataFrame:
    """Training loss of each run, as `signal_curves` gives values; of long runs the mean over stretches of updates."""
    return frame(
        connection,
        """with longest as (select 1 + max(step) // $points as stretch from training_metrics where run = any($runs::varchar[]))
        select m.run, r.arm, r.seed, $loss as mechanism, max(m.step) as step, avg(m.value) as value
        from training_metrics m join runs r using (run), longest
        where m.metric = 'loss_nats' and m.run = any($runs::varchar[])
        group by m.run, r.arm, r.seed, m.step // stretch
        order by list_position($runs::varchar[], m.run), step""",
        runs=runs,
        loss=LOSS,
        points=_POINTS,
    )


def _unit(name: str) -> str:
    return "nats" if name == LOSS else signal_unit(name)
