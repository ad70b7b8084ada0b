"""Columns of what enters a module, replaced while a model computes: a head before O, a neuron before its MLP's second matrix.

No gradient flows through what is replaced, nor into what it is replaced by.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

Fill = Callable[[Float[Tensor, "... column"]], Float[Tensor, "..."] | float]
"""What the columns become, from what they are; broadcast over all examples and positions."""


@contextmanager
def replaced_columns(module: nn.Module, columns: slice, fill: Fill) -> Iterator[None]:
    """While the block runs, some columns of a module's first input are what `fill` makes of them."""

    def replace(_module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        entering: Tensor = arguments[0].clone()
        with torch.no_grad():
            made = fill(arguments[0][..., columns])
        entering[..., columns] = made
        return (entering, *arguments[1:])

    handle = module.register_forward_pre_hook(replace)
    try:
        yield
    finally:
        handle.remove()


def constant(value: float | Float[Tensor, "*column"]) -> Fill:
    """The same number, or the same number in each column, everywhere."""
    return lambda _entering: value


def mean_over_positions(entering: Float[Tensor, "... column"]) -> Float[Tensor, " column"]:
    """The mean over all examples and positions that are computed together: mean ablation (Wang et al. 2022, §3.2)."""
    return entering.flatten(0, -2).mean(0)
