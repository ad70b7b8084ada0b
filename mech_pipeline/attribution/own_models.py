"""Models of other people as functions from token ids to logits, and which of their parameters an optimizer trains.

What a model returns is looked at on a few examples, not guessed from its class: logits, an object with `logits`
(`transformers`), or a tuple that begins with them (nanoGPT, whose forward gives all logits only if it is also given
targets).
"""

import copy
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from mech_pipeline.errors import MechError
from mech_pipeline.training.kernels import MATH_ATTENTION
from mech_pipeline.training.model import example_losses


def giving_logits(model: nn.Module, tokens: Int[Tensor, "example token"]) -> nn.Module:
    """A copy from token ids to logits; parameters keep their names.

    Args:
        tokens: some examples to try it with.

    Raises:
        MechError: it does not take token ids, or does not give logits for every token.
    """
    mine: Any = copy.deepcopy(model).eval()
    if hasattr(mine, "set_attn_implementation"):
        mine.set_attn_implementation(MATH_ATTENTION)
    kind: Any = type(mine)
    given = _given(mine, tokens[:, :-1].to(next(model.parameters()).device))

    class Bare(kind):
        def forward(self, tokens: Tensor) -> Tensor:
            return _logits(kind.forward(self, tokens, **_arguments(given, tokens)))

    mine.__class__ = Bare
    return mine


def _given(model: nn.Module, tokens: Tensor) -> tuple[str, ...]:
    """Names of the arguments that a model gets besides tokens."""
    known = inspect.signature(model.forward).parameters
    logits = _tried(model, tokens, ())
    if _fits(logits, tokens):
        # Positions of every example of its own have a known gradient (`per_example/contraction.py`), one row for all has not.
        if "position_ids" in known:
            other = _tried(model, tokens, ("position_ids",))
            if _fits(other, tokens) and torch.allclose(logits, other, rtol=1e-4, atol=1e-5):
                return ("position_ids",)
        return ()
    if "targets" in known and _fits(_tried(model, tokens, ("targets",)), tokens):
        return ("targets",)
    shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    raise MechError(
        f"of tokens of shape {tuple(tokens.shape)} the model gives {shape}, not logits [example, token, vocabulary]",
        "wrap it in a module whose forward(tokens) returns the logits of every token",
    )


def _arguments(names: tuple[str, ...], tokens: Tensor) -> dict[str, Tensor]:
    places = torch.arange(tokens.shape[1], device=tokens.device)
    known = {"position_ids": places.expand(tokens.shape), "targets": tokens}
    return {name: known[name] for name in names}


def _tried(model: nn.Module, tokens: Tensor, given: tuple[str, ...]) -> Any:
    try:
        with torch.no_grad():
            return _logits(model(tokens, **_arguments(given, tokens)))
    except Exception as error:
        raise MechError(
            f"the model does not take token ids of shape {tuple(tokens.shape)}: {type(error).__name__}: {error}",
            "wrap it in a module whose forward(tokens) returns the logits of every token",
        ) from error


def _logits(result: Any) -> Any:
    if isinstance(result, Mapping) and "logits" in result:
        return result["logits"]
    found = getattr(result, "logits", result)
    return found[0] if isinstance(found, tuple | list) else found


def _fits(logits: Any, tokens: Tensor) -> bool:
    return isinstance(logits, Tensor) and logits.dim() == 3 and logits.shape[:2] == tokens.shape


def freeze_untrained(
    copied: nn.Module, model: nn.Module, optimizer: object, tokens: Int[Tensor, "example token"]
) -> None:
    """Freezes in a copy what training leaves alone: frozen in the model, not given to the optimizer, or out of the loss's reach.

    PyTorch's optimizers skip what has no gradient, its decay included.

    Args:
        optimizer: of the model; a description trains all that is not frozen.
        tokens: a batch.

    Raises:
        MechError: nothing is trained.
    """
    own = dict(model.named_parameters())
    trained = {name: parameter for name, parameter in copied.named_parameters() if own[name].requires_grad}
    if isinstance(optimizer, torch.optim.Optimizer):
        given = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        trained = {name: parameter for name, parameter in trained.items() if id(own[name]) in given}
    if not trained:
        raise MechError(
            "the optimizer trains no parameter of this model",
            "give the record the model that the optimizer was made for",
        )
    loss = example_losses(copied, tokens.to(next(copied.parameters()).device)).mean()
    reached = torch.autograd.grad(loss, list(trained.values()), allow_unused=True) if loss.requires_grad else ()
    kept = {name for name, gradient in zip(trained, reached, strict=False) if gradient is not None}
    if not kept:
        raise MechError("the loss depends on no parameter that is trained", "check requires_grad and the forward pass")
    for name, parameter in copied.named_parameters():
        parameter.requires_grad_(name in kept)
