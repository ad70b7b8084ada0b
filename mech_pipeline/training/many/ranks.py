"""Who computes which micro-batches, and how their gradients are summed.

Every gradient is a balanced binary sum over the micro-batches of the batch: ((g₀ + g₁) + (g₂ + g₃)) + …. P processes, a
power of two, each take one subtree and then add the P subtotals in the same tree, so the sum has the same bits for any
P, one included: a run trained on eight GPUs is replayed on one, and can be resumed on two.

An all-reduce leaves the order of its additions to the library. Here every process receives its share of the parameters
from all others, adds in tree order and hands the sums out again: the same traffic as a ring all-reduce.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

Vector = Float[Tensor, " value"]


@dataclass(frozen=True)
class Ranks:
    """One process of those that train a run; by default the only one.

    Attributes:
        rank: which one; 0 keeps the checkpoints.
        count: how many there are.
        device: where its tensors are.
    """

    rank: int = 0
    count: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @classmethod
    def joined(cls, device: torch.device) -> "Ranks":
        """This process's place in the `torch.distributed` group that was initialised before."""
        return cls(dist.get_rank(), dist.get_world_size(), device)

    def tell(self, numbers: Sequence[int]) -> None:
        """Sends whole numbers from rank 0 to all others, which `hear` them."""
        if self.count > 1:
            dist.broadcast(torch.tensor([len(numbers)], device=self.device), 0)
            dist.broadcast(torch.tensor([*numbers, 0], device=self.device), 0)

    def hear(self) -> list[int]:
        """What rank 0 told."""
        length = torch.zeros(1, dtype=torch.int64, device=self.device)
        dist.broadcast(length, 0)
        numbers = torch.zeros(int(length) + 1, dtype=torch.int64, device=self.device)
        dist.broadcast(numbers, 0)
        return [int(number) for number in numbers[:-1]]

    def tree_sum(self, vector: Vector) -> Vector:
        """Sum over all processes, the same bits on each: reduce-scatter by hand, added in tree order, then all-gather."""
        if self.count == 1:
            return vector
        share = -(-len(vector) // self.count)
        sent = vector.new_zeros(self.count * share)
        sent[: len(vector)] = vector
        received = torch.empty_like(sent)
        dist.all_to_all_single(received, sent)
        mine = tree_sum(list(received.view(self.count, share)))
        gathered = torch.empty_like(sent)
        dist.all_gather_single(gathered, mine.contiguous())
        return gathered[: len(vector)]


ALONE = Ranks()


def tree_sum(parts: Sequence[Tensor]) -> Tensor:
    """((p₀ + p₁) + (p₂ + p₃)) + …

    >>> tree_sum([torch.tensor(1.0), torch.tensor(2.0), torch.tensor(4.0)])
    tensor(7.)
    """
    return tree_sum_of(lambda index: parts[index], 0, len(parts))


def tree_sum_of(part: Callable[[int], Tensor], begin: int, end: int) -> Tensor:
    """The same sum over parts begin … end − 1, made one at a time; memory: one partial sum per level of the tree."""
    if end - begin == 1:
        return part(begin)
    middle = (begin + end) // 2
    return tree_sum_of(part, begin, middle) + tree_sum_of(part, middle, end)
