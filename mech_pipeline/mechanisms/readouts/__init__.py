"""Differentiable readouts for every model family: what a mechanism is made of, besides its probe data."""

from mech_pipeline.mechanisms.readouts.composition import composition
from mech_pipeline.mechanisms.readouts.heads import (
    attention_to,
    fixed_direction,
    head_output_along,
    unembedding_difference,
)
from mech_pipeline.mechanisms.readouts.inputs import Attended, Contrast, Marked, Placed, attended
from mech_pipeline.mechanisms.readouts.neurons import neuron_activation
from mech_pipeline.mechanisms.readouts.predictions import logit_difference, loss
from mech_pipeline.mechanisms.readouts.readout import Readout

__all__ = [
    "Attended",
    "Contrast",
    "Marked",
    "Placed",
    "Readout",
    "attended",
    "attention_to",
    "composition",
    "fixed_direction",
    "head_output_along",
    "logit_difference",
    "loss",
    "neuron_activation",
    "unembedding_difference",
]
