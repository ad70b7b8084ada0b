"""Many small runs at once: their parameters stacked, one forward and backward for all (`torch.func.vmap`).

Small models are bound by the number of operations, not by arithmetic. A stack does the operations of one run for all
of them, and shares the stack among CPU cores. A run's bits do not depend on who else is in its stack: matrix products
are batched per run, so a stack of one is the same computation, and that is how a stacked run is replayed; on a GPU every
stack has as many rows for the same reason, and its operations are recorded once and replayed (`graphs.py`). Training
it alone without stacking differs by rounding (about 1e-7 of a gradient's norm, one update).

Measured as throughput against the same runs one after another: benchmarks/README.md.
"""

import copy
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.overrides import TorchFunctionMode

from mech_pipeline.training.flat import FlatModel
from mech_pipeline.training.many.graphs import Recorded
from mech_pipeline.training.many.ranks import tree_sum_of
from mech_pipeline.training.model import example_losses

T = TypeVar("T")
GPU_ROWS = 8
"""Runs in every stack on a GPU. Libraries choose their kernels there by the number of matrices, so a stack that lacks
runs is filled up with copies of its first: it costs less than it seems, because small kernels leave a GPU idle."""
_ALIGNED = 4
"""Numbers to whose multiple the rows of a stack are filled up on a GPU: a sum that begins between two 16-byte words is
added in another order, and the norm of a run's gradient would depend on the run's place."""
Batch = Sequence[tuple[Int[Tensor, "example token"], Float[Tensor, " example"]]]
"""Tokens and weights of each micro-batch."""


class StackedGradient:
    """Gradients of the batch losses of several runs of one architecture."""

    def __init__(self, flat: FlatModel) -> None:
        self._model = copy.deepcopy(flat.model)  # its own: functional_call swaps parameters while it runs
        self._flat = flat
        self._recorded = Recorded(self._compute)

    def __call__(
        self,
        thetas: Float[Tensor, "run parameter"],
        tokens: Int[Tensor, "run example token"],
        weights: Float[Tensor, "run example"],
    ) -> tuple[Float[Tensor, "run parameter"], Float[Tensor, " run"]]:
        """(∇, mean weighted loss) of each run at its θ."""
        if not thetas.is_cuda:
            return self._compute(thetas, tokens, weights)
        parameters = thetas.shape[1]
        gradients, losses = self._recorded(F.pad(thetas, (0, -parameters % _ALIGNED)), tokens, weights)
        return gradients[:, :parameters], losses

    def _compute(self, thetas: Tensor, tokens: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        leaves = thetas.detach().requires_grad_()
        losses = vmap(self._loss)(leaves, tokens, weights)
        (gradients,) = torch.autograd.grad(losses.sum(), leaves)
        return gradients, losses.detach()

    def _loss(self, theta: Tensor, tokens: Tensor, weights: Tensor) -> Tensor:
        model = _WithParameters(self._model, self._flat.named(theta))
        with _EmbeddingByRun() if theta.is_cuda else nullcontext():
            return (example_losses(model, tokens) * weights).mean()


class _EmbeddingByRun(TorchFunctionMode):
    """Embeddings whose gradients are summed run by run.

    In one sum over all runs a GPU adds up the places of a token in pieces that begin where they lie in the stack, so a
    run's bits would depend on its place.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        settings = kwargs or {}
        if func is F.embedding and settings.get("padding_idx") is None and settings.get("max_norm") is None:
            tokens, weight = args
            return _Lookup.apply(weight, tokens)
        return func(*args, **settings)


class _Lookup(torch.autograd.Function):
    """weight[tokens] of one run; of a stack, `_LookupOfRuns`."""

    @staticmethod
    def forward(weight: Tensor, tokens: Tensor) -> Tensor:
        return weight[tokens]

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        raise NotImplementedError("a stack has several runs")

    @staticmethod
    def vmap(info: Any, in_dims: Any, weight: Tensor, tokens: Tensor) -> tuple[Tensor, int]:
        weight = weight.movedim(in_dims[0], 0)
        tokens = tokens.expand(info.batch_size, *tokens.shape) if in_dims[1] is None else tokens.movedim(in_dims[1], 0)
        return _LookupOfRuns.apply(weight, tokens), 0


class _LookupOfRuns(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, tokens: Tensor) -> Tensor:
        ctx.save_for_backward(tokens)
        ctx.rows = weight.shape[1]
        return torch.stack([one[places] for one, places in zip(weight, tokens, strict=True)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (tokens,) = ctx.saved_tensors
        sums = [
            torch.ops.aten.embedding_dense_backward(one.contiguous(), places, ctx.rows, -1, False)
            for one, places in zip(gradient, tokens, strict=True)
        ]
        return torch.stack(sums), None


class _WithParameters(nn.Module):
    """A module called with other parameters than its own."""

    def __init__(self, model: nn.Module, parameters: dict[str, Tensor]) -> None:
        super().__init__()
        self.__dict__.update(_model=model, _named=parameters)

    def forward(self, tokens: Tensor) -> Tensor:
        return functional_call(self.__dict__["_model"], self.__dict__["_named"], (tokens,))


@dataclass
class _Request:
    """One run waits for its gradient and for what it makes of it."""

    theta: Tensor
    batch: Callable[[], Batch]
    finish: Callable[[Tensor, float], Any]
    answered: threading.Event = field(default_factory=threading.Event)
    result: Any = None
    error: BaseException | None = None


class Together:
    """Runs in threads of their own, whose gradients are computed in one stack as soon as all have asked.

    Args:
        runs: how many take part.
        workers: threads that share the stack.
        threads: CPU threads that each worker computes with, `training.threads`; they decide the bits.
    """

    def __init__(self, runs: int, workers: int, threads: int) -> None:
        self._members, self._workers = runs, max(1, min(workers, runs))
        self._pool = ThreadPoolExecutor(self._workers, initializer=torch.set_num_threads, initargs=(threads,))
        self._lock = threading.Lock()
        self._asked: list[_Request] = []
        self._stacks: list[StackedGradient] = []

    def compute(
        self,
        flat: FlatModel,
        theta: Tensor,
        batch: Callable[[], Batch],
        finish: Callable[[Tensor, float], T],
    ) -> T:
        """`finish` of one run's gradient and loss; waits for the others of the stack.

        Work that belongs to one run, drawing its batch and updating its weights, is given as `batch` and `finish` to
        the thread that computes its share of the stack: eight threads that all do a little get in each other's way.
        """
        request = _Request(theta, batch, finish)
        with self._lock:
            while len(self._stacks) < self._workers:
                self._stacks.append(StackedGradient(flat))
            self._asked.append(request)
            self._compute_if_all_asked()
        request.answered.wait()
        if request.error is not None:
            raise request.error
        result: T = request.result
        return result

    def leave(self) -> None:
        """One run has ended; the others no longer wait for it."""
        with self._lock:
            self._members -= 1
            self._compute_if_all_asked()
            if not self._members:
                self._pool.shutdown()

    def _compute_if_all_asked(self) -> None:
        if not self._asked or len(self._asked) < self._members:
            return
        asked, self._asked = self._asked, []
        share = -(-len(asked) // self._workers)
        parts = [asked[begin : begin + share] for begin in range(0, len(asked), share)]
        list(self._pool.map(_answer, self._stacks, parts))


def _answer(stack: StackedGradient, requests: Sequence[_Request]) -> None:
    try:
        gradients, losses = _gradients(stack, requests)
        for request, gradient, loss in zip(requests, gradients, losses.tolist(), strict=True):
            try:
                request.result = request.finish(gradient, loss)
            except BaseException as error:
                request.error = error
    except BaseException as error:
        for request in requests:
            request.error = error
    for request in requests:
        request.answered.set()


def _gradients(stack: StackedGradient, requests: Sequence[_Request]) -> tuple[Tensor, Tensor]:
    """Gradients and losses of whole batches, micro-batches added in the tree of `ranks.py`."""
    batches = [request.batch() for request in requests]
    if requests[0].theta.device.type == "cpu":
        return _of_a_stack(stack, [request.theta for request in requests], batches)
    found = []
    for begin in range(0, len(requests), GPU_ROWS):
        some = range(begin, min(begin + GPU_ROWS, len(requests)))
        rows = [*some, *[begin] * (GPU_ROWS - len(some))]
        whole = _of_a_stack(stack, [requests[row].theta for row in rows], [batches[row] for row in rows])
        found.append([part[: len(some)] for part in whole])
    gradients, losses = (torch.cat(parts) for parts in zip(*found, strict=True))
    return gradients, losses


def _of_a_stack(stack: StackedGradient, states: Sequence[Tensor], batches: Sequence[Batch]) -> tuple[Tensor, Tensor]:
    thetas = torch.stack(list(states))
    count = len(batches[0])
    losses: list[Tensor] = []

    def part(index: int) -> Tensor:
        tokens, weights = (torch.stack([batch[index][which] for batch in batches]) for which in (0, 1))
        gradients, values = stack(thetas, tokens, weights)
        losses.append(values / count)
        return gradients / count

    gradients = tree_sum_of(part, 0, count)
    return gradients, tree_sum_of(lambda index: losses[index], 0, count)
