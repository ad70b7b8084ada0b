"""What is lost when a head may not look from some positions at some others.

Its attention there is 0 and the rest of the query's attention is scaled up to sum to 1; one head at a time, all else as it is.
What a head passes on by another way is not in it. Source: Sharma & Raval 2026 (masked attention to the top of the stack).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mech_pipeline.training.bridge_type import TransformerBridge

Value = Callable[[Float[Tensor, "example token vocabulary"]], Float[Tensor, ""]]
"""A number that logits give."""


def lost_without_edges(
    bridge: TransformerBridge,
    tokens: Int[Tensor, "example token"],
    value: Value,
    edges: tuple[Int[Tensor, " edge"], Int[Tensor, " edge"], Int[Tensor, " edge"]],
) -> Float[Tensor, "layer head"]:
    """value(model) − value(model whose head does not look along the edges), for each head. Cost: a forward a head, and one more.

    Args:
        edges: example, query and key of each; several may have the same query.
    """

    def valued(hooks: list[tuple[str | Callable[..., Any], Callable[..., Any]]]) -> Tensor:
        return value(bridge.run_with_hooks(tokens, fwd_hooks=hooks))

    with torch.no_grad():
        whole = valued([])
        left = [
            [valued([(pattern_of(layer), partial(_without, head, edges))]) for head in range(bridge.cfg.n_heads)]
            for layer in range(bridge.cfg.n_layers)
        ]
    return torch.stack([torch.stack([whole - each for each in of_layer]) for of_layer in left])


def pattern_of(layer: int) -> str:
    """The hook of a layer's attention pattern."""
    return f"blocks.{layer}.attn.hook_pattern"


def _without(head: int, edges: tuple[Tensor, Tensor, Tensor], pattern: Tensor, hook: object) -> Tensor:
    example, query, key = edges
    masked = pattern.clone()
    masked[example, head, query, key] = 0
    rows = masked[example, head, query]
    masked[example, head, query] = rows / rows.sum(-1, keepdim=True).clamp_min(1e-12)
    return masked
