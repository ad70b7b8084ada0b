"""The best path between two heads: the largest K-composition score, less what two random heads have, 1/√d_model."""

import torch

from mech_pipeline.mechanisms.anatomy import head_count, head_weights, layer_count
from mech_pipeline.mechanisms.readouts.composition import composition
from mech_pipeline.signals.moment import Moment
from mech_pipeline.signals.signal import Signal


def best(at: Moment) -> float:
    """NaN of one layer."""
    model, heads = at.model, range(head_count(at.model))
    width = head_weights(model, 0, 0).query.shape[1]
    layers = layer_count(model)
    pairs = [
        ((lower, sender), (upper, receiver))
        for upper in range(1, layers)
        for lower in range(upper)
        for sender in heads
        for receiver in heads
    ]
    with torch.no_grad():
        scores = [float(composition("K", *pair)(model, None)) for pair in pairs]
    return max(scores, default=float("nan")) - width**-0.5


SIGNAL = Signal(best, "score beyond chance", "largest K-composition of two heads", "Elhage et al. 2021")
