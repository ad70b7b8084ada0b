"""Which component every single parameter belongs to: heads' Q, K, V, O, embeddings, norms, MLPs.

Q, K and V belong to heads by the outputs of a weight, O by its inputs. Splitting O by outputs, as some libraries do,
would mix all heads. Key-value heads that several heads share are groups: `L0G1.K`. A tied embedding is one component,
`embedding`, read as well as written. On request MLPs are split by neuron: `L0N17.in` is the neuron's row of the weight
that reads the residual stream and its bias (`.gate` beside it in gated MLPs), `L0N17.out` its column of the weight that
writes; the bias of the latter belongs to no neuron: `L0.MLP.out_bias`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mech_pipeline.attribution.per_example.component_labels import Heads, labels_of, neuron_labels
from mech_pipeline.errors import MechError, near
from mech_pipeline.training.flat import FlatModel, Slot


@dataclass(frozen=True)
class Components:
    """Names of all components and, for every parameter, the index of its component."""

    names: tuple[str, ...]
    index: Int[Tensor, " parameter"]

    def sums(self, products: Float[Tensor, " parameter"]) -> Float[Tensor, " component"]:
        """Sum per component, in float64."""
        if products.is_cuda:
            return self.sums_one_by_one(products)
        zeros = torch.zeros(len(self.names), dtype=torch.float64, device=products.device)
        return zeros.index_add_(0, self.index, products.double())

    def sums_one_by_one(self, products: Float[Tensor, " parameter"]) -> Float[Tensor, " component"]:
        """The same, a sum for each component: a deterministic `index_add_` on a GPU adds up millions of numbers in a row."""
        order, sizes = self._grouped
        return torch.stack([part.sum() for part in products.double()[order].split(sizes)])

    @cached_property
    def _grouped(self) -> tuple[Int[Tensor, " parameter"], list[int]]:
        """Parameters in the order of their components, and how many each has."""
        sizes = torch.bincount(self.index.cpu(), minlength=len(self.names))
        return torch.argsort(self.index, stable=True), sizes.tolist()

    def norms(self, vector: Float[Tensor, " parameter"]) -> Float[Tensor, " component"]:
        """L2 norm per component."""
        return self.sums(vector.double().square()).sqrt()

    def matching(self, patterns: Sequence[str]) -> list[int]:
        """Indices of the components that fit any of the glob patterns, such as `L1H*.K` or `L0N3.*`.

        Raises:
            MechError: a pattern fits none.
        """
        found: set[int] = set()
        for pattern in patterns:
            fits = [index for index, name in enumerate(self.names) if fnmatchcase(name, pattern)]
            if not fits:
                like = near(pattern, self.names) or list(self.names[:5])
                raise MechError(f"no component fits {pattern!r}", f"names here are like {', '.join(like)}")
            found.update(fits)
        return sorted(found)


def components_of(flat: FlatModel, heads: int, kv_heads: int | None = None, *, neurons: bool = False) -> Components:
    """The components of a model.

    Args:
        kv_heads: heads with keys and values of their own; default: all.
        neurons: split MLPs by neuron.

    Raises:
        ValueError: a parameter belongs to no known component.
    """
    shared = Heads(heads, kv_heads or heads)
    names: dict[str, int] = {}
    index = []
    for slot in flat.slots:
        labels, along = (neuron_labels(slot) if neurons else None) or labels_of(slot, shared)
        numbers = torch.tensor([names.setdefault(label, len(names)) for label in labels])
        index.append(_spread(numbers, slot, along).reshape(-1))
    return Components(tuple(names), torch.cat(index).to(flat.vector.device))


def _spread(numbers: Int[Tensor, " unit"], slot: Slot, along: int | None) -> Int[Tensor, "..."]:
    """Component numbers of the units of one dimension, for every entry of the parameter."""
    if along is None:
        return numbers.expand(slot.shape) if slot.shape else numbers[0]
    shape = [1] * len(slot.shape)
    shape[along] = -1
    return numbers.view(shape).expand(slot.shape)
