"""Moments out of a `torch.optim` state, which knows parameters by number: 0, 1, … in the order they were given."""

from collections.abc import Mapping

import torch
from torch import Tensor

from mech_pipeline.errors import MechError
from mech_pipeline.exchange.suites.converting.written import Named, Parts

ADAM_MOMENTS = ("exp_avg", "exp_avg_sq")


def moments_by_number(tensors: Mapping[str, Tensor], prefix: str, shapes: Mapping[str, torch.Size], what: str) -> Parts:
    """`exp_avg` and `exp_avg_sq` of parameters in the order of `shapes`; zeros before the first update; nothing if it has none.

    Args:
        prefix: of the optimizer's state in the pickle.

    Raises:
        MechError: it is a state of other parameters.
    """
    found: Parts = {part: Named() for part in ADAM_MOMENTS}
    numbers = {name.split("/")[-2] for name in tensors if name.startswith(f"{prefix}/state/")}
    if unknown := sorted(numbers - {str(number) for number in range(len(shapes))}):
        raise MechError(f"{what} has moments of parameter {unknown[0]}; the model has {len(shapes)}", "fetch it again")
    for number, (name, shape) in enumerate(shapes.items()):
        for part in ADAM_MOMENTS:
            moment = tensors.get(f"{prefix}/state/{number}/{part}")
            if moment is None and numbers:
                raise MechError(f"{what} has no {part} of {name}", "it is not whole: fetch it again")
            moment = torch.zeros(shape) if moment is None else moment.float()
            if moment.shape != shape:
                raise MechError(
                    f"{what}: {part} of {name} is {list(moment.shape)}, expected {list(shape)}", "fetch it again"
                )
            found[part][name] = moment
    return found
