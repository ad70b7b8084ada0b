"""CUDA graphs: what a small model does on a GPU, recorded once and replayed, because it waits for the host and not for the GPU."""

import gc
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor

_WARM_UP = 2
"""Calls before recording: libraries make their handles and workspaces at the first one, which must not be recorded."""
_one_at_a_time = threading.Lock()
Function = Callable[..., tuple[Tensor, ...]]
Memory = Any
"""As `torch.cuda.graph_pool_handle` gives it."""


class Recorded:
    """A function of GPU tensors, recorded for each set of shapes it is called with.

    The same kernels run on the same numbers in the same order, so the bits are those of the function itself.

    Args:
        function: draws no random numbers, keeps nothing between calls, and never looks at a value on the host.
    """

    def __init__(self, function: Function) -> None:
        self._function = function
        self._recordings: dict[tuple[object, ...], _Recording] = {}
        self._memory: Memory | None = None

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The function's results, in memory of their own."""
        key = tuple((tensor.shape, tensor.dtype, tensor.device) for tensor in inputs)
        if key not in self._recordings:
            self._memory = self._memory or torch.cuda.graph_pool_handle()
            self._recordings[key] = _Recording(self._function, inputs, self._memory)
        return self._recordings[key].replay(inputs)


class _Recording:
    """One set of shapes. Its results are copied at once, so that the recordings of a function may share their memory."""

    def __init__(self, function: Function, inputs: Sequence[Tensor], memory: Memory) -> None:
        self._inputs = [tensor.detach().clone() for tensor in inputs]
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(inputs[0].device), _undisturbed():
            aside = _aside(inputs[0].device)
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                for _ in range(_WARM_UP):
                    function(*self._inputs)
            # Other threads, which publish checkpoints, may go on: only what this one does is recorded.
            with torch.cuda.graph(self._graph, pool=memory, stream=aside, capture_error_mode="thread_local"):
                self._outputs = function(*self._inputs)

    def replay(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        for kept, tensor in zip(self._inputs, inputs, strict=True):
            kept.copy_(tensor)
        self._graph.replay()
        return tuple(tensor.clone() for tensor in self._outputs)


@cache
def _aside(device: torch.device) -> torch.cuda.Stream:
    """The stream of all recordings of a GPU: memory is shared among recordings on one stream only."""
    return torch.cuda.Stream(device)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """One recording at a time in a process, as CUDA graphs require, and none is broken by the freeing of an older one."""
    with _one_at_a_time:
        collects = gc.isenabled()
        gc.disable()
        try:
            yield
        finally:
            if collects:
                gc.enable()
