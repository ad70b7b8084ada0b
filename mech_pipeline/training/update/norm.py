"""The norm of a gradient, with the same bits however many processes hold its rows.

    ‖g‖ = √ Σ_rows Σ_columns g²    in float64, rounded to float32 once

A sum over one long vector would depend on where it is cut.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mech_pipeline.training.flat import Slot


def row_squares(slots: Sequence[Slot], gradient: Float[Tensor, " value"]) -> Float[Tensor, " row"]:
    """Σ g² of each row of each parameter; a bias of n numbers has n rows."""
    squares = [
        gradient[slot.begin : slot.end].view(slot.shape[0], -1).double().square().sum(1)
        if slot.end > slot.begin
        else gradient.new_zeros(slot.shape[0], dtype=torch.float64)
        for slot in slots
    ]
    return torch.cat(squares)


def norm_of_rows(squares: Float[Tensor, " row"]) -> float:
    """The norm from the sums of all rows."""
    return float(squares.sum().sqrt().float())
