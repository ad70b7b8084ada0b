"""Probe tokens: single predicted tokens, each in a sequence of its own, and their losses."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mech_pipeline.mechanisms.anatomy import unembedding_module

_TOGETHER = 64
"""Sequences of one forward: enough that matrices are large, few enough that short ones need not be filled up."""


@dataclass(frozen=True)
class ProbeTokens:
    """Tokens whose loss is followed.

    Attributes:
        tokens: token ids of the sequences.
        position: of the predicted token in each, from 1 on: nothing predicts the first.
    """

    tokens: Int[Tensor, "probe token"]
    position: Int[Tensor, " probe"]

    def __post_init__(self) -> None:
        assert len(self.tokens) == len(self.position), "a position for each sequence"
        assert bool((self.position >= 1).all()), "nothing predicts the first token"

    def __len__(self) -> int:
        return len(self.position)

    def to(self, device: torch.device) -> "ProbeTokens":
        """The same, on a device."""
        return ProbeTokens(self.tokens.to(device), self.position.to(device))

    def chunks(self) -> Iterator[tuple[Int[Tensor, " chunk"], "ProbeTokens"]]:
        """All of them, shortest context first, some at a time, cut behind their last predicted token: no model looks ahead."""
        for rows in self.position.argsort(stable=True).split(_TOGETHER):
            end = int(self.position[rows].max()) + 1
            yield rows, ProbeTokens(self.tokens[rows, :end], self.position[rows])

    def losses(self, model: nn.Module, tokens: Int[Tensor, "probe token"]) -> Float[Tensor, " probe"]:
        """−log p(the token | its context) of each, nats; differentiable. No other place gets logits: they are most of the work.

        Args:
            tokens: those of this object, as per-example gradients hand them over.
        """
        rows, before = torch.arange(len(tokens), device=tokens.device), self.position - 1

        def only_there(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
            return (inputs[0][rows, before][:, None],)

        hook = unembedding_module(model).register_forward_pre_hook(only_there)
        try:
            logits = model(tokens[:, :-1])[:, 0]
        finally:
            hook.remove()
        return torch.nn.functional.cross_entropy(logits, tokens[rows, self.position], reduction="none")
