"""Many small runs at once: their parameters stacked, one forward and backward for all (`torch.func.vmap`).

Small models are bound by the number of operations, not by arithmetic. A stack does the operations of one run for all
of them, and shares the stack among CPU cores. A run's bits do not depend on who else is in its stack: matrix products
are batched per run, so a stack of one is the same computation, and that is how a stacked run is replayed. Training
it alone without stacking differs by rounding (about 1e-7 of a gradient's norm, one update).

Measured as throughput against the same runs one after another: benchmarks/README.md.
"""

import copy
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call, vmap

from mech_pipeline.training.flat import FlatModel
from mech_pipeline.training.model import example_losses

Result = tuple[Tensor, float]
"""Gradient and loss of one run."""


class StackedGradient:
    """Gradients of the batch losses of several runs of one architecture."""

    def __init__(self, flat: FlatModel) -> None:
        self._model = copy.deepcopy(flat.model)  # its own: functional_call swaps parameters while it runs
        self._flat = flat

    def __call__(
        self,
        thetas: Float[Tensor, "run parameter"],
        tokens: Int[Tensor, "run example token"],
        weights: Float[Tensor, "run example"],
    ) -> tuple[Float[Tensor, "run parameter"], Float[Tensor, " run"]]:
        """(∇, mean weighted loss) of each run at its θ."""
        leaves = thetas.detach().requires_grad_()
        losses = vmap(self._loss)(leaves, tokens, weights)
        (gradients,) = torch.autograd.grad(losses.sum(), leaves)
        return gradients, losses.detach()

    def _loss(self, theta: Tensor, tokens: Tensor, weights: Tensor) -> Tensor:
        model = _WithParameters(self._model, self._flat.named(theta))
        return (example_losses(model, tokens) * weights).mean()


class _WithParameters(nn.Module):
    """A module called with other parameters than its own."""

    def __init__(self, model: nn.Module, parameters: dict[str, Tensor]) -> None:
        super().__init__()
        self.__dict__.update(_model=model, _named=parameters)

    def forward(self, tokens: Tensor) -> Tensor:
        return functional_call(self.__dict__["_model"], self.__dict__["_named"], (tokens,))


@dataclass
class _Request:
    """One run waits for its gradient."""

    theta: Tensor
    tokens: Tensor
    weights: Tensor
    result: Result | None = None
    error: BaseException | None = None


class Together:
    """Runs in threads of their own, whose gradients are computed in one stack as soon as all have asked.

    Args:
        runs: how many take part.
        threads: CPU threads that share the stack.
    """

    def __init__(self, runs: int, threads: int) -> None:
        self._members, self._threads = runs, max(1, min(threads, runs))
        # The thread count decides bits, and is a setting of each thread.
        self._pool = ThreadPoolExecutor(
            self._threads, initializer=torch.set_num_threads, initargs=(torch.get_num_threads(),)
        )
        self._changed = threading.Condition()
        self._asked: list[_Request] = []
        self._stacks: list[StackedGradient] = []

    def gradient(self, flat: FlatModel, theta: Tensor, tokens: Tensor, weights: Tensor) -> Result:
        """The gradient and loss of one run; waits for the others of the stack."""
        request = _Request(theta, tokens, weights)
        with self._changed:
            while len(self._stacks) < self._threads:
                self._stacks.append(StackedGradient(flat))
            self._asked.append(request)
            self._compute_if_all_asked()
            self._changed.wait_for(lambda: request.result is not None or request.error is not None)
        if request.error is not None:
            raise request.error
        assert request.result is not None, "waited for"
        return request.result

    def leave(self) -> None:
        """One run has ended; the others no longer wait for it."""
        with self._changed:
            self._members -= 1
            self._compute_if_all_asked()
            if not self._members:
                self._pool.shutdown()

    def _compute_if_all_asked(self) -> None:
        if not self._asked or len(self._asked) < self._members:
            return
        asked, self._asked = self._asked, []
        share = -(-len(asked) // self._threads)
        parts = [asked[begin : begin + share] for begin in range(0, len(asked), share)]
        list(self._pool.map(_answer, self._stacks, parts))
        self._changed.notify_all()


def _answer(stack: StackedGradient, requests: Sequence[_Request]) -> None:
    try:
        fields = ("theta", "tokens", "weights")
        gradients, losses = stack(*(torch.stack([getattr(r, field) for r in requests]) for field in fields))
        for request, gradient, loss in zip(requests, gradients, losses.tolist(), strict=True):
            request.result = gradient, loss
    except BaseException as error:
        for request in requests:
            request.error = error
