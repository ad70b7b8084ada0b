"""`torch.optim` optimizers in the form of `training/update/optimizer.py`: their settings and their moments.

Adam, AdamW (eps outside the root, as PyTorch has it) and SGD with momentum. PyTorch's SGD adds weight decay to the
gradient, which is another update than the decoupled one here, so SGD with decay is refused.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mech_pipeline.errors import MechError
from mech_pipeline.spec.training import Optimizer

_KINDS = {"AdamW": "adamw", "Adam": "adam", "SGD": "sgd"}
_REFUSED = ("amsgrad", "maximize", "nesterov", "dampening")


def optimizer_spec(
    optimizer: torch.optim.Optimizer, *, learning_rates: Sequence[float] = (), clip_norm: float | None = None
) -> Optimizer:
    """The description of an optimizer.

    Args:
        learning_rates: of every update; default: the one the optimizer has now.

    Raises:
        MechError: its updates are of another form.
    """
    name = type(optimizer).__name__
    groups: list[dict[str, Any]] = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
    if name not in _KINDS or any(group != groups[0] for group in groups):
        raise MechError(
            f"optimizer {name} with {len(groups)} groups of settings cannot be replayed",
            "use Adam, AdamW or SGD with the same settings for all parameters",
        )
    chosen = groups[0]
    if wrong := [key for key in _REFUSED if chosen.get(key)]:
        raise MechError(f"{name} with {wrong[0]} cannot be replayed", f"train without {wrong[0]}")
    kind = "adamw" if chosen.get("decoupled_weight_decay") else _KINDS[name]
    if kind == "sgd" and chosen["weight_decay"]:
        raise MechError(
            "SGD with weight_decay adds the decay to the gradient, which is not replayed", "use 0, or AdamW"
        )
    rate = float(chosen.get("initial_lr", chosen["lr"]))
    if rate == 0 and not learning_rates:
        raise MechError("the learning rate is 0", "give learning_rates=[…], one for each update")
    settings: dict[str, Any] = {
        "kind": kind,
        "learning_rate": rate or 1.0,  # of no meaning beside `rates`
        "rates": tuple(float(rate) for rate in learning_rates),
        "warmup_steps": 0,
        "weight_decay": chosen["weight_decay"],
        "clip_norm": clip_norm,
    }
    if kind == "sgd":
        return Optimizer(**settings, momentum=chosen["momentum"])
    beta1, beta2 = chosen["betas"]
    return Optimizer(**settings, beta1=beta1, beta2=beta2, eps=chosen["eps"], eps_root=0.0)


def moments_of(optimizer: torch.optim.Optimizer, parameters: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """(first, second) moment of every parameter that the optimizer has updated."""
    found = {}
    for name, parameter in parameters.items():
        state = optimizer.state.get(parameter, {})
        first = state.get("exp_avg", state.get("momentum_buffer"))
        if first is not None:
            found[name] = first, state.get("exp_avg_sq", torch.zeros_like(first))
    return found
