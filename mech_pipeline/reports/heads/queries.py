"""What the report asks the store of attention heads."""

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
