"""The gradient of a mechanism, or a sentence on why there is none: never a silent zero.

A readout can fail to be differentiable in three ways. Its result has no graph (`.item()`, `.detach()`, `argmax`, a
comparison). Its graph has a step function (`sign`, `round`, …), whose derivative PyTorch gives as 0. Or no parameter of
this model is in its graph. A gradient that is 0 for a smooth readout (a ReLU neuron that is off) is a gradient.
"""

import math

import torch
from torch import Tensor

from mech_pipeline.errors import MechError
from mech_pipeline.mechanisms.probe import Probe
from mech_pipeline.mechanisms.registry import MECHANISMS
from mech_pipeline.training.flat import FlatModel, flatten
from mech_pipeline.training.update.optimizer import Vector

_STEPS = {f"{name}Backward0": name.lower() for name in ("Sign", "Round", "Floor", "Ceil", "Trunc", "Heaviside")}


def mechanism_gradient(name: str, flat: FlatModel, probe: Probe) -> Vector:
    """∇ of a mechanism's value at the current parameters. One forward and backward of the probe.

    Raises:
        MechError: it is not differentiable, not finite, or no parameter of this model enters it.
    """
    value = MECHANISMS[name].value(flat.model, probe)
    if not bool(value.isfinite()):
        raise MechError(
            f"mechanism {name} is {float(value.detach())}, so it has no gradient", "check its readout and the model"
        )
    if not value.requires_grad:
        raise MechError(
            f"mechanism {name} is not differentiable: its readout gives a number without a graph",
            "leave out .item(), .detach(), no_grad, argmax and comparisons; use a smooth quantity",
        )
    if step := _step_function(value):
        raise MechError(
            f"mechanism {name} is not differentiable: its readout uses {step}, whose derivative is 0 everywhere",
            "use a smooth quantity",
        )
    parts = torch.autograd.grad(value, flat.parameters, allow_unused=True)
    if all(part is None for part in parts):
        raise MechError(
            f"mechanism {name} has no gradient: no parameter of this {type(flat.model).__name__} enters its readout",
            "compute it from the model that the readout is given",
        )
    gradient = flatten(parts, flat.parameters)
    if not all(math.isfinite(extreme) for extreme in torch.stack(gradient.aminmax()).tolist()):  # NaN is both extremes
        raise MechError(
            f"the gradient of mechanism {name} is not finite, although its value is {float(value.detach()):.6g}",
            "avoid roots, logarithms and divisions that reach 0 in its readout",
        )
    return gradient


def _step_function(value: Tensor) -> str | None:
    """The first step function in a number's graph."""
    waiting, seen = [value.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if (step := _STEPS.get(node.name())) is not None:
            return step
        waiting.extend(following for following, _ in node.next_functions)
    return None
