"""What the report asks the store of circuits."""

from collections.abc import Sequence

import duckdb
import polars as pl

from mech_pipeline.frames import frame


def with_circuits(connection: duckdb.DuckDBPyConnection, runs: Sequence[str]) -> list[tuple[str, str]]:
    """(run, mechanism) pairs that have circuits, in the order of the runs."""
    rows = frame(
        connection,
        """select distinct run, mechanism from circuits where run = any($runs::varchar[])
        order by list_position($runs::varchar[], run), mechanism""",
        runs=list(runs),
    )
    return rows.rows()


def circuit_edges(connection: duckdb.DuckDBPyConnection, run: str, mechanism: str) -> pl.DataFrame:
    """Every edge at every step: step, source, target, score, place, in_circuit, again (see the table `circuits`)."""
    return frame(
        connection,
        """select step, source, target, score, place, in_circuit, again from circuits
        where run = $run and mechanism = $mechanism order by step, place""",
        run=run,
        mechanism=mechanism,
    )


def faithfulness_curves(connection: duckdb.DuckDBPyConnection, run: str, mechanism: str) -> pl.DataFrame:
    """Every curve at every step: step, ordering, edges, share, faithfulness (see the table `circuit_curves`)."""
    return frame(
        connection,
        """select step, ordering, edges, share, faithfulness from circuit_curves
        where run = $run and mechanism = $mechanism order by step, ordering, edges""",
        run=run,
        mechanism=mechanism,
    )


def circuit_areas(connection: duckdb.DuckDBPyConnection, runs: Sequence[str]) -> pl.DataFrame:
    """CPR = ∫ f and CMD = ∫ |1 − f| over the share of edges kept, by trapezoids: run, step, mechanism, ordering, cpr, cmd."""
    return frame(
        connection,
        """with points as (
            select run, step, mechanism, ordering, share, faithfulness as f,
                lag(share) over line as share_before, lag(faithfulness) over line as f_before
            from circuit_curves where run = any($runs::varchar[])
            window line as (partition by run, step, mechanism, ordering order by edges))
        select run, step, mechanism, ordering,
            sum((share - share_before) * (f + f_before) / 2) as cpr,
            sum((share - share_before) * (abs(1 - f) + abs(1 - f_before)) / 2) as cmd
        from points where share_before is not null
        group by all order by run, mechanism, step, ordering""",
        runs=list(runs),
    )


def criteria(connection: duckdb.DuckDBPyConnection, run: str, mechanism: str) -> pl.DataFrame:
    """Trials of the last checkpoint: criterion, edge, removed, faithfulness, reference, and how far the two are apart."""
    return frame(
        connection,
        """select criterion, edge, removed, faithfulness, reference, abs(faithfulness - reference) as difference
        from circuit_criteria where run = $run and mechanism = $mechanism
        qualify step = max(step) over () order by criterion, trial""",
        run=run,
        mechanism=mechanism,
    )


def circuit_drift(connection: duckdb.DuckDBPyConnection, run: str, mechanism: str) -> pl.DataFrame:
    """How alike circuits are (shared edges of all edges in either): step, n_edges, before, again.

    before: with the circuit of the step before; again: with that of another draw of prompts at the same step, empty where
    the mechanism has one draw only.
    """
    return frame(
        connection,
        """with edges as (
            select step, in_circuit, again, lag(in_circuit) over (partition by source, target order by step) as earlier
            from circuits where run = $run and mechanism = $mechanism)
        select step, count(*) filter (in_circuit) as n_edges,
            count(*) filter (in_circuit and earlier) / nullif(count(*) filter (in_circuit or earlier), 0)
                * if(bool_and(earlier is not null), 1, null) as before,
            count(*) filter (in_circuit and again) / nullif(count(*) filter (in_circuit or again), 0)
                * if(bool_and(again is not null), 1, null) as again
        from edges group by step order by step""",
        run=run,
        mechanism=mechanism,
    )
