"""The graph of a transformer: what writes to the residual stream, what reads it, and which edges lie between.

    writers   input (token embedding), every head a0.h1, every MLP m0
    readers   the query, key and value input of every head a1.h2<q>, <k>, <v>, every MLP m1, logits

A reader sees the sum of all writers before it, so there is an edge from each of them. Names as in EAP-IG and ACDC.
Source: Elhage et al. 2021 (residual stream as a sum); Conmy et al. 2023 (edges); Hanna et al. 2024, §2.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool
from torch import Tensor

from mech_pipeline.errors import MechError
from mech_pipeline.training.bridge_type import TransformerBridge

INPUT, LOGITS = "input", "logits"


@dataclass(frozen=True)
class Graph:
    """All edges of a model, over all positions together.

    Attributes:
        layers, heads: of the model.
        mlps: whether its layers have MLPs.
        parallel: whether an MLP reads the same stream as its layer's heads (GPT-NeoX) and not what they add.
    """

    layers: int
    heads: int
    mlps: bool
    parallel: bool = False

    @cached_property
    def writers(self) -> list[str]:
        """In the order in which they write."""
        return [INPUT, *(name for layer in range(self.layers) for name in self._written(layer))]

    @cached_property
    def readers(self) -> list[str]:
        """In the order in which they read: q, k, v of a layer's heads, its MLP, …, logits."""
        found: list[str] = []
        for layer in range(self.layers):
            found += [f"a{layer}.h{head}<{kind}>" for kind in "qkv" for head in range(self.heads)]
            found += [f"m{layer}"] * self.mlps
        return [*found, LOGITS]

    @cached_property
    def edges(self) -> Bool[Tensor, "writer reader"]:
        """Whether there is an edge."""
        return torch.tensor([[self._before(w, r) for r in self.readers] for w in self.writers])

    @cached_property
    def places(self) -> list[tuple[int, int]]:
        """(writer, reader) of every edge, as places in `writers` and `readers`."""
        return [(int(w), int(r)) for w, r in self.edges.nonzero()]

    def source_of(self, reader: int) -> int | None:
        """The writer that is made of what a reader reads; none for logits."""
        name = self.readers[reader].split("<")[0]
        return None if name == LOGITS else self.writers.index(name)

    def _written(self, layer: int) -> list[str]:
        return [f"a{layer}.h{head}" for head in range(self.heads)] + [f"m{layer}"] * self.mlps

    def _before(self, writer: str, reader: str) -> bool:
        if writer == INPUT or reader == LOGITS:
            return True
        one, other = _layer(writer), _layer(reader)
        return one < other or (one == other and writer[0] == "a" and reader[0] == "m" and not self.parallel)


def graph_of(bridge: TransformerBridge) -> Graph:
    """The graph of a model.

    Raises:
        MechError: its heads share keys and values, so that a key input belongs to several heads.
    """
    cfg = bridge.cfg
    if (getattr(cfg, "n_key_value_heads", None) or cfg.n_heads) != cfg.n_heads:
        raise MechError(
            "circuits need a key and a value for each head; this model's heads share them", "leave them out"
        )
    return Graph(cfg.n_layers, cfg.n_heads, not cfg.attn_only, bool(getattr(cfg, "parallel_attn_mlp", False)))


def _layer(name: str) -> int:
    return int(name[1:].split(".")[0])
