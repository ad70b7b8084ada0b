"""Edge attribution patching with integrated gradients: one number an edge, how much of a mechanism it carries.

    score(w → r) = Σ_examples,positions ⟨a_w − a'_w, mean over α of ∂m/∂(input of r) at embeddings x' + α (x − x')⟩

a, x: clean; a', x': corrupted; m: the mechanism's value, α in the middle of equal parts of [0, 1]. Positive: what is clean
on the edge raises the mechanism. With α = 0 alone it is edge attribution patching (TransformerLens' `attribution_patch`).
The scores of all edges out of the input sum to m(clean) − m(corrupted), up to the quadrature.
Source: Hanna et al. 2024, §3 (EAP-IG, inputs); Syed et al. 2023 (EAP); Sundararajan et al. 2017 (completeness).
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mech_pipeline.mechanisms.circuits.graph import Graph
from mech_pipeline.mechanisms.circuits.patching import Hook, Reads, Tokens, Written, reader_hooks
from mech_pipeline.training.bridge_type import TransformerBridge

POINTS = 5
Metric = Callable[[nn.Module], Float[Tensor, ""]]
"""From a model that reads tokens to the mechanism's value."""


def midpoints(count: int = POINTS) -> list[float]:
    """
    >>> midpoints(2)
    [0.25, 0.75]
    """
    return [(index + 0.5) / count for index in range(count)]


def edge_scores(
    bridge: TransformerBridge,
    graph: Graph,
    metric: Metric,
    clean: tuple[Tokens, Written],
    corrupted: Written,
    points: Sequence[float] | None = None,
) -> Float[Tensor, "writer reader"]:
    """Scores of all edges, 0 where there is none.

    Args:
        clean: the tokens of the mechanism's data, and what writers write on them.
        corrupted: what they write on the corrupted tokens.
        points: α; default: `midpoints()`.
    """
    tokens, activations = clean
    change = activations - corrupted
    points = midpoints() if points is None else points
    scores = torch.zeros(len(graph.writers), len(graph.readers), dtype=change.dtype)
    for point in points:
        embedding = corrupted[:, :, 0] + point * change[:, :, 0]
        gradients = _reader_gradients(bridge, graph, metric, tokens, embedding)
        length = gradients.shape[1]
        scores += torch.einsum("etwd,etrd->wr", change[:, :length], gradients) / len(points)
    return scores * graph.edges


def _reader_gradients(
    bridge: TransformerBridge, graph: Graph, metric: Metric, tokens: Tokens, embedding: Tensor
) -> Float[Tensor, "example read reader d_model"]:
    """∂m/∂(input of each reader), when the embeddings are replaced by these."""
    added: list[Tensor] = []

    def replace(stream: Tensor, hook: object) -> Tensor:
        return embedding[:, : stream.shape[1]]

    def change(readers: slice, stream: Tensor) -> Tensor:
        shape = (*stream.shape[:2], readers.stop - readers.start, stream.shape[2])
        added.append(torch.zeros(shape, dtype=stream.dtype, device=stream.device, requires_grad=True))
        return added[-1]

    hooks: list[Hook] = [("hook_embed", replace), *reader_hooks(bridge, graph, change)]

    def logits(read: Tokens) -> Tensor:
        found: Tensor = bridge.run_with_hooks(read, fwd_hooks=hooks)
        return found

    with torch.enable_grad():
        found = torch.autograd.grad(metric(Reads(logits, tokens)), added)
    return torch.cat(found, dim=2)
