"""The most directions that a head's queries and keys use: the largest participation ratio of σ² of W_QK over all heads."""

import torch

from mech_pipeline.mechanisms.anatomy import head_count, head_weights, layer_count
from mech_pipeline.signals.moment import Moment
from mech_pipeline.signals.signal import Signal
from mech_pipeline.signals.spectrum import participation_ratio


def largest(at: Moment) -> float:
    """From the weights alone."""
    found = []
    for layer in range(layer_count(at.model)):
        for head in range(head_count(at.model)):
            weights = head_weights(at.model, layer, head)
            query, key = weights.query.detach().double(), weights.key.detach().double()
            squares = torch.linalg.eigvals(query @ query.T @ (key @ key.T)).real.clamp_min(0)  # σ² of QᵀK
            found.append(participation_ratio(squares))
    return max(found)


SIGNAL = Signal(
    largest, "directions", "largest participation ratio of a head's W_QK", "after Xu 2026, arXiv 2606.02378"
)
