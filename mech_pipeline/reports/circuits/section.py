"""The report's section on circuits."""

from typing import Any

import duckdb
import polars as pl

from mech_pipeline.reports.circuits import queries
from mech_pipeline.reports.circuits.criteria import circuit_criteria
from mech_pipeline.reports.circuits.figures import ATTRIBUTED, circuit_graphs, circuits_over_steps
from mech_pipeline.reports.drawing import figure_png
from mech_pipeline.reports.influence.sections import first_per_mechanism
from mech_pipeline.reports.wording import plus_minus
from mech_pipeline.spec.experiment import Experiment

_EDGES = 15


def circuit_sections(
    connection: duckdb.DuckDBPyConnection, experiment: Experiment, drawn: dict[str, bytes]
) -> list[dict[str, Any]]:
    """What the template shows of circuits: figures of the first run of each mechanism, a row for every run."""
    runs = [spec.run for spec in experiment.runs()]
    pairs = [pair for pair in queries.with_circuits(connection, runs) if pair[1] in experiment.mechanisms]
    areas = queries.circuit_areas(connection, runs)
    sections = []
    for run, mechanism in first_per_mechanism(pairs):
        curves = queries.faithfulness_curves(connection, run, mechanism)
        edges = queries.circuit_edges(connection, run, mechanism)
        title = f"{mechanism}: circuits of run {run}, n = 1 seed"
        names = tuple(f"{what}_{mechanism}.png" for what in ("circuits", "circuit_graphs", "circuit_criteria"))
        here = areas.filter(run=run, mechanism=mechanism)
        drift = queries.circuit_drift(connection, run, mechanism)
        drawn[names[0]] = figure_png(circuits_over_steps(curves, here, drift, title))
        drawn[names[1]] = figure_png(circuit_graphs(edges, title))
        trials = queries.criteria(connection, run, mechanism)
        if trials.height:
            drawn[names[2]] = figure_png(circuit_criteria(trials, title))
        last = edges.filter(pl.col("step") == pl.col("step").max())
        sections.append(
            {
                "mechanism": mechanism,
                "run": run,
                "step": f"{last['step'][0]:,}",
                "figures": names[: 3 if trials.height else 2],
                "edges": [_edge(row) for row in last.head(_EDGES).iter_rows(named=True)],
                "runs": [_run_row(connection, other, mechanism, areas) for other, name in pairs if name == mechanism],
            }
        )
    return sections


def no_circuits(experiment: Experiment) -> str:
    """Why there is no circuit to show."""
    if any(spec.circuits.mechanisms for spec in experiment.runs()):
        return "Circuits were asked for, but they have not been computed yet."
    return "This experiment asks for no circuits (its field `circuits`)."


def _edge(row: dict[str, Any]) -> dict[str, str]:
    again = {True: "yes", False: "no", None: "not drawn"}[row["again"]]
    return {
        "edge": f"{row['source']} → {row['target']}",
        "score": f"{row['score']:+.3f}",
        "kept": "yes" if row["in_circuit"] else "no",
        "again": again,
    }


def _run_row(connection: duckdb.DuckDBPyConnection, run: str, mechanism: str, areas: pl.DataFrame) -> dict[str, str]:
    """The last checkpoint of one run."""
    here = areas.filter(run=run, mechanism=mechanism)
    last = here.filter(pl.col("step") == pl.col("step").max())
    found = last.filter(ordering=ATTRIBUTED).row(0, named=True)
    random = last.filter(pl.col("ordering") != ATTRIBUTED)["cmd"]
    drift = queries.circuit_drift(connection, run, mechanism).row(-1, named=True)
    edges = queries.circuit_edges(connection, run, mechanism).filter(step=found["step"]).height
    mean = float(random.mean())  # type: ignore[arg-type]
    return {
        "run": run,
        "step": f"{found['step']:,}",
        "edges": f"{drift['n_edges']} of {edges}",
        "cpr": f"{found['cpr']:.3f}",
        "cmd": f"{found['cmd']:.3f}",
        "random": plus_minus(mean, float(random.std())) if len(random) > 1 else f"{mean:.3f}",  # type: ignore[arg-type]
        "ratio": f"{mean / found['cmd']:.1f} ×" if found["cmd"] > 0 else "",
        "again": "one draw only" if drift["again"] is None else f"{drift['again']:.2f}",
        **_criteria(queries.criteria(connection, run, mechanism)),
    }


def _criteria(trials: pl.DataFrame) -> dict[str, str]:
    """How incomplete a circuit was found to be at most, and what its least needed edge adds."""
    incomplete, needed = (
        trials.filter(criterion=name)["difference"].to_list() for name in ("completeness", "minimality")
    )
    return {
        "incomplete": f"{max(incomplete):.2f}" if incomplete else "–",
        "idle": f"{min(needed):.2f}" if needed else "–",
    }
