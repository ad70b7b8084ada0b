"""What the report asks the store of attention heads."""

from collections.abc import Sequence

import duckdb
import polars as pl

from mech_pipeline.frames import frame


def head_scores(connection: duckdb.DuckDBPyConnection, run: str) -> pl.DataFrame:
    """Every head score of a run: step (updates), layer, head, detector, value (see the table `head_scores`)."""
    return frame(
        connection,
        """select step, layer, head, detector, value from head_scores
        where run = $run order by detector, layer, head, step""",
        run=run,
    )


def best_heads(connection: duckdb.DuckDBPyConnection, runs: Sequence[str], detector: str) -> pl.DataFrame:
    """The best head of each run at its last evaluation: run, arm, seed, step, layer, head, value."""
    return frame(
        connection,
        """select h.run, r.arm, r.seed, h.step, h.layer, h.head, h.value from head_scores h join runs r using (run)
        where h.detector = $detector and h.run = any($runs::varchar[])
        qualify row_number() over (partition by h.run order by h.step desc, h.value desc, h.layer, h.head) = 1
        order by list_position($runs::varchar[], h.run)""",
        detector=detector,
        runs=list(runs),
    )
