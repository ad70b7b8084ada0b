"""Circuits at the checkpoints that the experiment names: edges with their scores, and what the first of them carry.

A cell is one checkpoint and mechanism, in all tables. Edges are found a second time with another draw of prompts: how
much the two differ is how much circuits of two checkpoints may differ without anything having changed.
Source of that warning: "many circuits, one mechanism" (docs/method.md, circuits).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from mech_pipeline.mechanisms.circuits.circuit import (
    Place,
    Subject,
    curve,
    greedy_order,
    random_order,
    smallest,
    subject,
)
from mech_pipeline.mechanisms.circuits.criteria import Criteria
from mech_pipeline.mechanisms.circuits.graph import Graph
from mech_pipeline.mechanisms.registry import MECHANISMS
from mech_pipeline.pipeline.analysis.late import late_steps
from mech_pipeline.pipeline.analysis.wanted import CIRCUIT_TABLES, CIRCUITS_VERSION, pending_circuits, wanted_circuits
from mech_pipeline.pipeline.cells import Block, write
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.progress import Report, ignore_progress
from mech_pipeline.training.device import computing

ATTRIBUTED = "attributed"


@dataclass(frozen=True)
class Found:
    """One extraction.

    Attributes:
        order: all edges, most important first.
        size: how many of them carry 80 % of the mechanism.
    """

    order: list[Place]
    size: int

    @property
    def circuit(self) -> set[Place]:
        """The edges that carry it."""
        return set(self.order[: self.size])


def compute_circuits(
    run: OpenRun,
    steps: Iterable[int],
    on_steps: Callable[[list[int]], None] = lambda done: None,
    report: Report = ignore_progress,
) -> int:
    """Computes what is pending, checkpoint by checkpoint; returns the number of cells.

    Args:
        on_steps: called with steps whose rows are stored (current ones first).
    """
    steps = list(steps)
    cells, todo = wanted_circuits(run, steps), pending_circuits(run, steps)
    with computing(run.spec.training):
        for done, step in enumerate(late_steps(cells, todo, on_steps), start=1):
            flat, bridge = run.bridged
            flat.load(run.state(step).theta)
            for cell in [cell for cell in todo if cell.step == step]:
                assert cell.item is not None, "a circuit is of a mechanism"
                for table, rows in zip(CIRCUIT_TABLES, _find(run, bridge, cell.item), strict=True):
                    write(run.store, [Block(cell.of(table), rows, cells[cell])], CIRCUITS_VERSION)
            report(done)
    return len(todo)


def _find(run: OpenRun, bridge: Any, name: str) -> tuple[dict[str, list[Any]], ...]:
    """Rows of each table, without their keys."""
    mechanism, probe = MECHANISMS[name], run.tokens.probe
    first = subject(bridge, mechanism, probe)
    ends = first.ends()
    scores = first.scores()
    found = _found(first, ends, scores)
    again = None
    if mechanism.reads_text:  # else its data are the sequences of the run's probe, whoever asks
        second = subject(bridge, mechanism, probe, draw=" again")
        again = _found(second, second.ends(), second.scores()).circuit
    graph = first.graph
    edges: dict[str, list[Any]] = {
        "source": [graph.writers[w] for w, _ in found.order],
        "target": [graph.readers[r] for _, r in found.order],
        "score": [float(scores[place]) for place in found.order],
        "place": list(range(len(found.order))),
        "in_circuit": [place in found.circuit for place in found.order],
        "again": [None if again is None else place in again for place in found.order],
    }
    orders = {ATTRIBUTED: found.order}
    orders |= {f"random {seed}": random_order(graph, seed) for seed in range(run.spec.circuits.random_orders)}
    curves: dict[str, list[Any]] = {name: [] for name in ("ordering", "edges", "share", "value", "faithfulness")}
    for ordering, order in orders.items():
        line = curve(first, order, ends)
        curves["ordering"] += [ordering] * len(line.edges)
        curves["edges"] += line.edges
        curves["share"] += [number / len(order) for number in line.edges]
        curves["value"] += [ends[0] + share * (ends[1] - ends[0]) for share in line.faithfulness]
        curves["faithfulness"] += line.faithfulness
    criteria = Criteria(first, found.order[: found.size], ends)
    return curves, _trials(graph, criteria), edges


def _trials(graph: Graph, criteria: Criteria) -> dict[str, list[Any]]:
    """Rows of `circuit_criteria`."""

    def name(edge: Place) -> str:
        return f"{graph.writers[edge[0]]} → {graph.readers[edge[1]]}"

    both = [*enumerate(criteria.completeness()), *enumerate(criteria.minimality())]
    return {
        "criterion": [trial.criterion for _, trial in both],
        "trial": [number for number, _ in both],
        "edge": [None if trial.edge is None else name(trial.edge) for _, trial in both],
        "removed": [", ".join(map(name, trial.removed)) for _, trial in both],
        "faithfulness": [trial.faithfulness for _, trial in both],
        "reference": [trial.reference for _, trial in both],
    }


def _found(subject: Subject, ends: tuple[float, float], scores: Any) -> Found:
    order = greedy_order(subject.graph, scores)
    return Found(order, smallest(subject, order, ends))
