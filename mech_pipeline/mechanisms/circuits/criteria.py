"""Is a circuit complete, and is each of its edges needed? Wang et al.'s criteria, for edges.

    completeness   |f(C ∖ K) − f(M ∖ K)| small for every K ⊆ C:  the circuit breaks as the model does
    minimality     |f(C ∖ (K ∪ {e})) − f(C ∖ K)| large for some K ⊆ C ∖ {e}, for every e ∈ C:  no edge is idle

f: faithfulness (`circuit.py`), M: all edges, C: the circuit. No K is tried exhaustively: every single edge and random halves.
So the largest incompleteness found is a lower bound of the true one, and the minimality of an edge too: a backup that shows
only without a K that was not tried stays unseen.
Cost: about (random halves + 2) forwards for each edge of the circuit.
Source: Wang et al. 2022, §4 (completeness, minimality; there for heads, with greedy K as well).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

from mech_pipeline.mechanisms.circuits.circuit import Place, Subject, keep
from mech_pipeline.spec.seeds import fixed_numpy_generator

COMPLETENESS, MINIMALITY = "completeness", "minimality"
HALVES = 8
"""Random halves of the circuit that completeness is tried with."""
WITHOUT = 3
"""The first of them are what minimality is tried with, beside nothing."""


@dataclass(frozen=True)
class Trial:
    """One comparison of two sets of edges.

    Attributes:
        criterion: COMPLETENESS or MINIMALITY.
        edge: minimality: the edge in question.
        removed: K.
        faithfulness: completeness: of the circuit without K; minimality: of the circuit without K and the edge.
        reference: completeness: of the model without K; minimality: of the circuit without K.
    """

    criterion: str
    edge: Place | None
    removed: tuple[Place, ...]
    faithfulness: float
    reference: float

    @property
    def difference(self) -> float:
        """In units of the whole mechanism."""
        return abs(self.faithfulness - self.reference)


class Criteria:
    """Both criteria of one circuit; every set of edges is patched once.

    Args:
        ends: m(∅), m(M).
        circuit: edges, in any order.
        seed: which draw of random halves, the same for every run: a fixed stream of `spec.seeds`.
    """

    def __init__(self, subject: Subject, circuit: Sequence[Place], ends: tuple[float, float], seed: int = 0) -> None:
        self._subject, self._circuit, self._ends = subject, tuple(circuit), ends
        generator = fixed_numpy_generator("circuit halves", seed)
        draws = [generator.random(len(circuit)) < 0.5 for _ in range(HALVES)]
        self._halves = [tuple(e for e, take in zip(circuit, taken, strict=True) if take) for taken in draws]
        self._known: dict[frozenset[Place], float] = {}

    def completeness(self) -> list[Trial]:
        """Every single edge and every random half removed, from the circuit and from the model."""
        model = self._subject.graph.places
        sets = dict.fromkeys(chain(((edge,) for edge in self._circuit), self._halves))
        return [
            Trial(COMPLETENESS, None, removed, self._f(self._circuit, removed), self._f(model, removed))
            for removed in sets
        ]

    def minimality(self) -> list[Trial]:
        """For each edge, the trial in which it matters most."""
        return [max(self._trials(edge), key=lambda trial: trial.difference) for edge in self._circuit]

    def _trials(self, edge: Place) -> Iterable[Trial]:
        for half in ((), *self._halves[:WITHOUT]):
            removed = tuple(e for e in half if e != edge)
            whole, less = self._f(self._circuit, removed), self._f(self._circuit, (*removed, edge))
            yield Trial(MINIMALITY, edge, removed, less, whole)

    def _f(self, edges: Sequence[Place], removed: Sequence[Place]) -> float:
        kept = frozenset(edges) - frozenset(removed)
        if kept not in self._known:
            nothing, everything = self._ends
            value = self._subject.value(keep(self._subject.graph, sorted(kept)))
            self._known[kept] = (value - nothing) / (everything - nothing)
        return self._known[kept]
