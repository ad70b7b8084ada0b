"""The report's section on circuits."""

from dataclasses import dataclass
from typing import Any

import polars as pl
from matplotlib.figure import Figure

from mech_pipeline.reports.circuits import queries
from mech_pipeline.reports.circuits.criteria import circuit_criteria
from mech_pipeline.reports.circuits.figures import ATTRIBUTED, circuit_graphs, circuits_over_steps
from mech_pipeline.reports.section import Section
from mech_pipeline.reports.subject import Study, first_per_mechanism
from mech_pipeline.reports.wording import plus_minus, signal_unit

_EDGES = 15


@dataclass(frozen=True)
class CircuitPart:
    """Circuits of one mechanism.

    Attributes:
        run: whose figures and edges are shown; `runs` has a row for every run.
        step: of the last checkpoint, whose first edges are listed.
        figures: over steps, graphs, and criteria where they were measured.
    """

    mechanism: str
    unit: str
    run: str
    step: str
    figures: list[str]
    edges: list[dict[str, str]]
    runs: list[dict[str, str]]


def circuits(study: Study) -> Section:
    """Figures of the first run of each mechanism, and a row for every run."""
    pairs = queries.with_circuits(study.connection, study.runs)
    pairs = [pair for pair in pairs if pair[1] in study.experiment.mechanisms]
    areas = queries.circuit_areas(study.connection, study.runs)
    parts, drawn = list[CircuitPart](), dict[str, Figure]()
    for run, mechanism in first_per_mechanism(pairs):
        here = _draw(study, run, mechanism, areas.filter(run=run, mechanism=mechanism))
        drawn |= here
        rows = [_run_row(study, other, mechanism, areas) for other, name in pairs if name == mechanism]
        edges = queries.circuit_edges(study.connection, run, mechanism)
        last = edges.filter(pl.col("step") == pl.col("step").max())
        shown = [_edge(row) for row in last.head(_EDGES).iter_rows(named=True)]
        step = f"{last['step'][0]:,}"
        parts.append(CircuitPart(mechanism, signal_unit(mechanism), run, step, list(here), shown, rows))
    context = {"parts": parts, "nothing": no_circuits(study)}
    return Section("circuits", "Circuits", "circuits/section.html", context, drawn, empty=not parts)


def _draw(study: Study, run: str, mechanism: str, areas: pl.DataFrame) -> dict[str, Figure]:
    """The figures of one run and mechanism by file name: over steps, graphs, criteria."""
    connection, title = study.connection, f"{mechanism}: circuits of run {run}, n = 1 seed"
    curves = queries.faithfulness_curves(connection, run, mechanism)
    drift = queries.circuit_drift(connection, run, mechanism)
    edges = queries.circuit_edges(connection, run, mechanism)
    made = {
        "circuits": circuits_over_steps(curves, areas, drift, title),
        "circuit_graphs": circuit_graphs(edges, title),
    }
    trials = queries.criteria(connection, run, mechanism)
    if trials.height:
        made["circuit_criteria"] = circuit_criteria(trials, title)
    return {f"{what}_{mechanism}.png": figure for what, figure in made.items()}


def no_circuits(study: Study) -> str:
    """Why there is no circuit to show."""
    if any(spec.circuits.mechanisms for spec in study.specs):
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


def _run_row(study: Study, run: str, mechanism: str, areas: pl.DataFrame) -> dict[str, str]:
    """The last checkpoint of one run."""
    connection = study.connection
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
