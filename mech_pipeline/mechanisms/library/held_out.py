"""What the model predicts of text that no run trains on: minus the held-out loss, measured at every checkpoint by default."""

import torch

from mech_pipeline.mechanisms.mechanism import Mechanism
from mech_pipeline.mechanisms.readouts.inputs import Marked
from mech_pipeline.mechanisms.readouts.predictions import loss
from mech_pipeline.mechanisms.source import ProbeSource
from mech_pipeline.spec.analysis import HELD_OUT


def windows(source: ProbeSource) -> Marked:
    """As many windows of held-out text as the probe has tiled sequences, every token but the first a target.

    A window is as long as the context, or as the longest held-out document if that is shorter.
    """
    longest = max(len(document) for document in source.held_out_documents())
    tokens = source.held_out_windows(len(source.tiled.tokens), min(source.context, longest))
    chosen = torch.ones_like(tokens, dtype=torch.bool)
    chosen[:, 0] = False
    return Marked(tokens, chosen)


MECHANISMS: dict[str, Mechanism[Marked]] = {
    HELD_OUT: Mechanism(
        readout=loss,
        data=windows,
        sign=-1,
        unit="nats",
        meaning="mean log-probability of the next token, held-out text: minus the held-out loss",
    )
}
