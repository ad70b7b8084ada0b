"""Forwards in which some edges carry what they carry on other tokens: path patching of any set of edges at once.

    input of reader r = Σ_w e_w,  e_w = a_w (as it is in this forward) if the edge w → r is kept, else a'_w (corrupted)

The sum is taken before the reader's norm, so norms are computed of the patched stream. Exact, nothing is linearised.
TransformerBridge splits the inputs of heads for some families only (native models are not among them), so a head's query,
key and value are moved by what its changed input makes of them: W (norm(x + change) − norm(x)).
Source: Wang et al. 2022, §3 (path patching); Hanna et al. 2024, §2.2 (ablated edges).
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mech_pipeline.errors import MechError
from mech_pipeline.mechanisms.circuits.graph import Graph
from mech_pipeline.training.bridge_type import TransformerBridge

Tokens = Int[Tensor, "example token"]
Written = Float[Tensor, "example token writer d_model"]
Hook = tuple[str | Callable[..., Any], Callable[..., Any]]
Change = Callable[[slice, Tensor], Float[Tensor, "example token reader d_model"]]
"""From readers and the residual stream that they read to what is added to the input of each."""


def written(bridge: TransformerBridge, graph: Graph, tokens: Tokens) -> Written:
    """What every writer adds to the residual stream. Constant parts (positions, biases of O) belong to nobody."""
    found: list[Tensor] = []
    with torch.no_grad():
        bridge.run_with_hooks(tokens, fwd_hooks=writer_hooks(bridge, graph, found))
    return torch.cat(found, dim=2)


def writer_hooks(bridge: TransformerBridge, graph: Graph, found: list[Tensor]) -> list[Hook]:
    """Hooks that collect what writers write in their order, each [example, token, writer, d_model]."""

    def one(activation: Tensor, hook: object) -> None:
        found.append(activation[:, :, None])

    def heads(output: Float[Tensor, "head d_head d_model"]) -> Callable[..., None]:
        def hook(mixed: Tensor, hook: object) -> None:
            found.append(torch.einsum("etha,had->ethd", mixed, output))

        return hook

    hooks: list[Hook] = [("hook_embed", one)]
    for layer in range(graph.layers):
        hooks.append((f"blocks.{layer}.attn.hook_z", heads(bridge.W_O[layer])))
        if graph.mlps:
            hooks.append((f"blocks.{layer}.hook_mlp_out", one))
    return hooks


def reader_hooks(bridge: TransformerBridge, graph: Graph, change: Change) -> list[Hook]:
    """Hooks that change what readers read, in the order of the readers."""
    hooks: list[Hook] = []
    first = 0
    for layer in range(graph.layers):
        block, stream = bridge.blocks[layer], list[Tensor]()
        hooks.append((f"blocks.{layer}.ln1.hook_in", _see(stream)))
        for kind, weight in (("q", bridge.W_Q), ("k", bridge.W_K), ("v", bridge.W_V)):
            readers = slice(first, first + graph.heads)
            hooks.append((f"blocks.{layer}.attn.hook_{kind}", _project(block, stream, weight[layer], readers, change)))
            first += graph.heads
        if graph.mlps:
            stream = []
            hooks.append((f"blocks.{layer}.ln2.hook_in", _see(stream)))
            hooks.append((f"blocks.{layer}.mlp.hook_in", _enter(block, stream, slice(first, first + 1), change)))
            first += 1
    last = slice(first, first + 1)
    return [*hooks, ("ln_final.hook_in", lambda read, hook: read + change(last, read)[:, :, 0])]


class Reads(nn.Module):
    """A function from tokens to logits, as readouts call a model.

    Args:
        logits: the function.
        clean: the tokens that the readout will read; it may leave out last tokens.
    """

    def __init__(self, logits: Callable[[Tokens], Tensor], clean: Tokens) -> None:
        super().__init__()
        self._logits, self._clean = logits, clean

    def forward(self, tokens: Tokens) -> Float[Tensor, "example token vocabulary"]:
        """Logits.

        Raises:
            MechError: the readout reads other tokens than its data's, so it is not known what to patch.
        """
        if tokens.shape[0] != len(self._clean) or not torch.equal(tokens, self._clean[:, : tokens.shape[1]]):
            raise MechError(
                "its readout reads other tokens than its data's, so edges cannot be patched", "leave it out"
            )
        return self._logits(tokens)


def patched(
    bridge: TransformerBridge, graph: Graph, kept: Bool[Tensor, "writer reader"], corrupted: Written, clean: Tokens
) -> Reads:
    """The model with every edge outside of a circuit ablated; without gradients.

    Args:
        kept: edges of the circuit.
        corrupted: what writers write on the corrupted tokens, `written`.
        clean: the tokens that the readout will read.
    """
    ablated = (graph.edges & ~kept).to(corrupted)

    def logits(tokens: Tokens) -> Tensor:
        live: list[Tensor] = []

        def change(readers: slice, stream: Tensor) -> Tensor:
            now = torch.cat(live, dim=2)
            other = corrupted[:, : now.shape[1], : now.shape[2]] - now
            return torch.einsum("etwd,wr->etrd", other, ablated[: now.shape[2], readers])

        hooks = writer_hooks(bridge, graph, live) + reader_hooks(bridge, graph, change)
        with torch.no_grad():
            found: Tensor = bridge.run_with_hooks(tokens, fwd_hooks=hooks)
        return found

    return Reads(logits, clean)


def _see(stream: list[Tensor]) -> Callable[..., None]:
    def hook(read: Tensor, hook: object) -> None:
        stream[:] = [read]

    return hook


def _project(
    block: Any, stream: list[Tensor], weight: Float[Tensor, "head d_model d_head"], readers: slice, change: Change
) -> Callable[..., Tensor]:
    """Queries, keys or values of a layer's heads, each of its own input."""
    norm = block.ln1.original_component

    def hook(projected: Tensor, hook: object) -> Tensor:
        (read,) = stream
        moved = norm(read[:, :, None] + change(readers, read)) - norm(read)[:, :, None]
        return projected + torch.einsum("ethd,hda->etha", moved, weight)

    return hook


def _enter(block: Any, stream: list[Tensor], reader: slice, change: Change) -> Callable[..., Tensor]:
    """The input of an MLP."""

    def hook(read: Tensor, hook: object) -> Tensor:
        entered: Tensor = block.ln2.original_component(stream[0] + change(reader, stream[0])[:, :, 0])
        return entered

    return hook
