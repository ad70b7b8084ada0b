"""Which component every single parameter belongs to: heads' Q, K, V, O, embeddings, norms, MLPs.

Q, K and V belong to heads by rows of the weight (output slices), O by columns (input slices). Splitting O by rows, as
some libraries do, would mix all heads.
"""

import re
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mech_pipeline.training.flat import FlatModel, Slot

_WHOLE = {"tok_embed": "embedding", "pos": "positions", "head": "unembedding", "ln_out": "final_norm"}
_IN_LAYER = {"ln1": "norm1", "ln2": "norm2"}


@dataclass(frozen=True)
class Components:
    """Names of all components and, for every parameter, the index of its component."""

    names: tuple[str, ...]
    index: Int[Tensor, " parameter"]

    def sums(self, products: Float[Tensor, " parameter"]) -> Float[Tensor, " component"]:
        """Sum per component, in float64."""
        zeros = torch.zeros(len(self.names), dtype=torch.float64)
        return zeros.index_add_(0, self.index, products.double())

    def norms(self, vector: Float[Tensor, " parameter"]) -> Float[Tensor, " component"]:
        """L2 norm per component."""
        return self.sums(vector.double().square()).sqrt()


def components_of(flat: FlatModel, heads: int) -> Components:
    """The components of a native model.

    Raises:
        ValueError: a parameter belongs to no known component.
    """
    names: dict[str, int] = {}
    index = [_slot_index(slot, heads, names).reshape(-1) for slot in flat.slots]
    return Components(tuple(names), torch.cat(index))


def _slot_index(slot: Slot, heads: int, names: dict[str, int]) -> Int[Tensor, "..."]:
    def number(name: str) -> int:
        return names.setdefault(name, len(names))

    module = slot.name.split(".")[0]
    if module in _WHOLE:
        return torch.full(slot.shape, number(_WHOLE[module]))
    match = re.fullmatch(r"layers\.(\d+)\.(\w+)(?:\.(\w+))?\.(weight|bias)", slot.name)
    if match is None:
        raise ValueError(f"parameter {slot.name} belongs to no known component")
    layer, block, part, kind = match.groups()
    if block in _IN_LAYER:
        return torch.full(slot.shape, number(f"L{layer}.{_IN_LAYER[block]}"))
    if block == "mlp":
        return torch.full(slot.shape, number(f"L{layer}.MLP.{part}"))
    if block != "attn" or part not in ("q", "k", "v", "o"):
        raise ValueError(f"parameter {slot.name} belongs to no known component")
    if part == "o" and kind == "bias":
        return torch.full(slot.shape, number(f"L{layer}.O_bias"))
    width = slot.shape[1] if part == "o" else slot.shape[0]
    per_unit = torch.tensor([number(f"L{layer}H{unit * heads // width}.{part.upper()}") for unit in range(width)])
    if kind == "bias":
        return per_unit
    return (per_unit[None, :] if part == "o" else per_unit[:, None]).expand(slot.shape)
