"""A mechanism's circuit at one state of a model: edges in order of their scores, and how much of the mechanism they carry.

    faithfulness f(C) = (m(C) − m(∅)) / (m(all) − m(∅)),  CPR = ∫ f,  CMD = ∫ |1 − f|  over the share of edges kept

m(C): the mechanism when every edge outside of C carries what it carries on corrupted tokens. A perfect order has CMD near
0; CMD is an area, so a graph with few edges cannot come below about half of the share that the true circuit needs.
Source: Mueller et al. 2025 (MIB; shares, trapezoids), Hanna et al. 2024 (greedy order).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mech_pipeline.errors import MechError
from mech_pipeline.mechanisms.circuits.attribution import edge_scores
from mech_pipeline.mechanisms.circuits.graph import LOGITS, Graph, graph_of
from mech_pipeline.mechanisms.circuits.patching import Tokens, Written, patched, written
from mech_pipeline.mechanisms.mechanism import Mechanism
from mech_pipeline.mechanisms.probe import Probe
from mech_pipeline.spec.seeds import fixed_numpy_generator
from mech_pipeline.training.bridge_type import TransformerBridge

SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Of edges, MIB's; 0 is added."""
Edges = Bool[Tensor, "writer reader"]
Place = tuple[int, int]


@dataclass(frozen=True)
class Subject:
    """A model with clean and corrupted tokens of one mechanism; made by `subject`."""

    bridge: TransformerBridge
    graph: Graph
    metric: Callable[[nn.Module], Float[Tensor, ""]]
    tokens: Tokens
    clean: Written
    corrupted: Written

    def value(self, kept: Edges) -> float:
        """m(C)."""
        return float(self.metric(patched(self.bridge, self.graph, kept, self.corrupted, self.tokens)))

    def scores(self, points: Sequence[float] | None = None) -> Float[Tensor, "writer reader"]:
        """EAP-IG, see `edge_scores`."""
        return edge_scores(self.bridge, self.graph, self.metric, (self.tokens, self.clean), self.corrupted, points)

    def ends(self) -> tuple[float, float]:
        """m(∅), m(all).

        Raises:
            MechError: they are equal, so no share of the difference is defined.
        """
        nothing, everything = (self.value(fill(self.graph.edges)) for fill in (torch.zeros_like, torch.ones_like))
        if everything == nothing:
            raise MechError("the mechanism is the same on corrupted tokens, so no circuit carries it", "corrupt more")
        return nothing, everything


def subject(bridge: TransformerBridge, mechanism: Mechanism[Any], probe: Probe, draw: str = "") -> Subject:
    """Clean and corrupted activations of a mechanism.

    Args:
        draw: another word draws other prompts, where the mechanism draws any.

    Raises:
        MechError: the mechanism has no corrupted tokens, or they do not fit.
    """
    data, corrupted = clean_and_corrupted(mechanism, probe, draw)
    graph = graph_of(bridge)

    def metric(model: nn.Module) -> Float[Tensor, ""]:
        return mechanism.sign * mechanism.readout(model, data)

    both = (written(bridge, graph, tokens) for tokens in (data.tokens, corrupted))
    return Subject(bridge, graph, metric, data.tokens, *both)


def clean_and_corrupted(
    mechanism: Mechanism[Any], probe: Probe, draw: str = ""
) -> tuple[Any, Int[Tensor, "example token"]]:
    """The probe data of a mechanism, and tokens that lack what it is about.

    Raises:
        MechError: there are none, or they do not fit.
    """
    if mechanism.corrupted is None:
        raise MechError(f"mechanism {mechanism.name} has no corrupted data", "give it `corrupted`: docs/mechanisms.md")
    name = f"{mechanism.name}{draw}"
    data, corrupted = probe.of(name, mechanism.data), probe.of(name, mechanism.corrupted)
    if data.tokens.shape != corrupted.shape:
        clean, other = list(data.tokens.shape), list(corrupted.shape)
        raise MechError(
            f"corrupted tokens of {mechanism.name} are {other}, the clean ones {clean}: they must fit one by one",
            "mend `corrupted`",
        )
    return data, corrupted


def greedy_order(graph: Graph, scores: Float[Tensor, "writer reader"]) -> list[Place]:
    """Edges, most important first, such that whatever an edge leads to is already connected with the logits.

    The next edge is the one with the largest absolute score among those into a reader whose component is reached.
    """
    size = scores.abs()
    reached = {graph.readers.index(LOGITS)}
    left, order = set(graph.places), list[Place]()
    while left:
        best = max((place for place in left if place[1] in reached), key=lambda place: (float(size[place]), place))
        left.remove(best)
        order.append(best)
        reached |= {r for r in range(len(graph.readers)) if graph.source_of(r) == best[0]}
    return order


def random_order(graph: Graph, seed: int) -> list[Place]:
    """All edges in the random order `seed`, which is the same for every run: a fixed stream of `spec.seeds`."""
    generator = fixed_numpy_generator("circuit orders", seed)
    return [graph.places[index] for index in generator.permutation(len(graph.places))]


def keep(graph: Graph, order: Sequence[Place]) -> Edges:
    """These edges as a mask."""
    kept = torch.zeros_like(graph.edges)
    for place in order:
        kept[place] = True
    return kept


def sizes(edges: int) -> list[int]:
    """Numbers of edges at MIB's shares, and 0.

    >>> sizes(100)
    [0, 1, 2, 5, 10, 20, 50, 100]
    """
    return sorted({0, *(round(share * edges) for share in SHARES)})


@dataclass(frozen=True)
class Curve:
    """Faithfulness against the number of edges kept, from 0 to all.

    Attributes:
        edges: numbers of edges, rising from 0 to all of them.
        faithfulness: of each.
    """

    edges: list[int]
    faithfulness: list[float]

    @property
    def cpr(self) -> float:
        """∫ f over the share of edges; larger is better."""
        return self._area(lambda f: f)

    @property
    def cmd(self) -> float:
        """∫ |1 − f| over the share of edges; smaller is better."""
        return self._area(lambda f: np.abs(1 - f))

    def _area(self, function: Callable[[Any], Any]) -> float:
        shares = np.array(self.edges) / self.edges[-1]
        return float(np.trapezoid(function(np.array(self.faithfulness)), shares))


def curve(subject: Subject, order: Sequence[Place], ends: tuple[float, float]) -> Curve:
    """Faithfulness of the first edges of an order, at MIB's shares."""
    nothing, everything = ends
    numbers = sizes(len(order))
    values = [subject.value(keep(subject.graph, order[:number])) for number in numbers]
    return Curve(numbers, [(value - nothing) / (everything - nothing) for value in values])


def smallest(subject: Subject, order: Sequence[Place], ends: tuple[float, float], enough: float = 0.8) -> int:
    """How many first edges of an order carry `enough` of the mechanism; by bisection, as Tigges et al. 2024 §2.

    Faithfulness need not rise with every edge, so fewer may be enough too.
    """
    nothing, everything = ends
    low, high = 0, len(order)
    while high - low > 1:
        middle = (low + high) // 2
        value = subject.value(keep(subject.graph, order[:middle]))
        low, high = (low, middle) if (value - nothing) / (everything - nothing) >= enough else (middle, high)
    return high
