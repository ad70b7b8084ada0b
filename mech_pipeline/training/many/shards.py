"""A model split among the ranks by rows of its parameters (PyTorch's FSDP2, `fully_shard`).

`fully_shard` gathers one layer at a time for forward and backward. Its reduce-scatter is replaced by the tree sum of
`ranks.py`, so gradients keep their bits for any number of ranks. Source: Zhao et al. 2023, PyTorch FSDP.
"""

import copy
from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from mech_pipeline.training.flat import FlatModel, Slot
from mech_pipeline.training.many.ranks import Ranks, tree_sum
from mech_pipeline.training.update.norm import norm_of_rows, row_squares

Part = Float[Tensor, " value"]
"""One rank's rows of all parameters."""
Vector = Float[Tensor, " parameter"]


class Shards:
    """One rank's rows of every parameter; vectors hold these rows only.

    Args:
        whole: the model to shard a copy of.
    """

    def __init__(self, whole: FlatModel, ranks: Ranks) -> None:
        self.model = copy.deepcopy(whole.model)
        _shard(self.model, ranks)
        self._ranks, self._slots = ranks, whole.slots
        self._layouts = [_layout(whole.slots, rank, ranks.count) for rank in range(ranks.count)]
        self._mine = self._layouts[ranks.rank]
        self._parameters = [cast(DTensor, parameter) for parameter in self.model.parameters()]
        for slot, parameter in zip(self._mine, self._parameters, strict=True):
            assert tuple(parameter.to_local().shape) == slot.shape, slot.name

    def load(self, theta: Part) -> None:
        """Sets this rank's rows."""
        with torch.no_grad():
            for slot, parameter in zip(self._mine, self._parameters, strict=True):
                parameter.to_local().copy_(theta[slot.begin : slot.end].view(slot.shape))

    def gradient(self, scalar: Tensor) -> Part:
        """This rank's rows of Σ_ranks ∇ scalar; every rank calls this with its own scalar."""
        torch.autograd.backward(scalar)
        found = [
            torch.zeros_like(parameter.to_local())
            if parameter.grad is None
            else cast(DTensor, parameter.grad).to_local()
            for parameter in self._parameters
        ]
        self.model.zero_grad()
        return torch.cat([rows.reshape(-1) for rows in found])

    def norm(self, gradient: Part) -> float:
        """‖g‖ of the whole gradient; every rank adds its rows' squares to a vector of all rows."""
        squares, taken, begin = row_squares(self._mine, gradient), 0, 0
        everyone = squares.new_zeros(sum(slot.shape[0] for slot in self._slots))
        for slot in self._slots:
            first, last = rows_of(slot, self._ranks.rank, self._ranks.count)
            everyone[begin + first : begin + last] = squares[taken : taken + last - first]
            begin, taken = begin + slot.shape[0], taken + last - first
        dist.all_reduce(everyone)  # all but one of the terms are 0: nothing is rounded
        return norm_of_rows(everyone)

    def part(self, whole: Vector) -> Part:
        """This rank's rows of a whole vector, where the rank computes."""
        rows = []
        for slot in self._slots:
            first, last = rows_of(slot, self._ranks.rank, self._ranks.count)
            rows.append(whole[slot.begin : slot.end].view(slot.shape)[first:last].reshape(-1))
        return torch.cat(rows).to(self._ranks.device)

    def whole(self, part: Part) -> Vector | None:
        """The whole vector on rank 0, on the CPU; every rank calls this."""
        padded = part.new_zeros(self._layouts[0][-1].end)  # rank 0 holds the most
        padded[: len(part)] = part
        received = [torch.empty_like(padded) for _ in self._layouts] if self._ranks.rank == 0 else None
        dist.gather(padded, received, 0)
        if received is None:
            return None
        held = [(vector.cpu(), layout) for vector, layout in zip(received, self._layouts, strict=True)]
        return torch.cat(
            [vector[(own := layout[n]).begin : own.end] for n in range(len(self._slots)) for vector, layout in held]
        )


class _TreeReduceScatter:
    """The reduce-scatter of `fully_shard`, with additions in tree order instead of the library's."""

    def allocate(self, size: Sequence[int], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        return torch.empty(*size, dtype=dtype, device=device)

    def __call__(
        self, output_tensor: Tensor, input_tensor: Tensor, group: dist.ProcessGroup, op: Any, async_op: bool = False
    ) -> None:
        received = torch.empty_like(input_tensor)
        dist.all_to_all_single(received, input_tensor, group=group)
        output_tensor.copy_(tree_sum(list(received.view(group.size(), -1))))


def _shard(model: nn.Module, ranks: Ranks) -> None:
    """Every layer is gathered by itself, what is outside of layers with the model."""
    mesh = init_device_mesh(ranks.device.type, (ranks.count,))
    layers = [layer for group in model.modules() if isinstance(group, nn.ModuleList) for layer in group]
    for module in [*layers, model]:
        fully_shard(module, mesh=mesh)
        sharded = cast(FSDPModule, module)
        sharded.set_custom_reduce_scatter(cast(Any, _TreeReduceScatter()))
        sharded.set_force_sum_reduction_for_comms(True)
        sharded.set_gradient_divide_factor(1.0)


def rows_of(slot: Slot, rank: int, count: int) -> tuple[int, int]:
    """Rows (begin, end) of a parameter that a rank holds: equal chunks, the last ones shorter or empty.

    >>> [rows_of(Slot("bias", (5,), 0, 5), rank, count=4) for rank in range(4)]
    [(0, 2), (2, 4), (4, 5), (5, 5)]
    """
    each, rows = -(-slot.shape[0] // count), slot.shape[0]
    return min(rank * each, rows), min((rank + 1) * each, rows)


def _layout(slots: Sequence[Slot], rank: int, count: int) -> list[Slot]:
    """Where a rank's rows of each parameter lie in its vectors."""
    found, begin = [], 0
    for slot in slots:
        first, last = rows_of(slot, rank, count)
        end = begin + (slot.end - slot.begin) // slot.shape[0] * (last - first)
        found.append(Slot(slot.name, (last - first, *slot.shape[1:]), begin, end))
        begin = end
    return found
