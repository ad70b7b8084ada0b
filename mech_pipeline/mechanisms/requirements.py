"""What of a model a mechanism needs, checked when the experiment file is read: a sentence if it is not there."""

from collections.abc import Callable

from mech_pipeline.spec.model import Model

Requirement = Callable[[Model], str | None]
"""From a model spec to None, or to a sentence on what is missing that goes on after the mechanism's name."""


def no_requirement(model: Model) -> str | None:
    """Any model will do."""
    return None


def needs_layers(count: int) -> Requirement:
    """A model that has at least so many layers."""

    def missing(model: Model) -> str | None:
        return None if model.layers >= count else f"needs {count} layers; the model has {model.layers}"

    return missing


def needs_head(layer: int, head: int) -> Requirement:
    """A model that has this attention head."""

    def missing(model: Model) -> str | None:
        return missing_head(layer, head, model.layers, model.heads)

    return missing


def needs_neuron(layer: int, neuron: int) -> Requirement:
    """A model that has this MLP neuron."""

    def missing(model: Model) -> str | None:
        if model.family == "native" and model.d_mlp is None:
            return f"needs neuron {neuron} of layer {layer}; the model is attention-only (no model.d_mlp)"
        if not (0 <= layer < model.layers and 0 <= neuron < model.mlp_width):
            return (
                f"needs neuron {neuron} of layer {layer}; the model has layers 0 to {model.layers - 1} with neurons 0 to "
                f"{model.mlp_width - 1}"
            )
        return None

    return missing


def all_of(*requirements: Requirement) -> Requirement:
    """Everything that several readouts need."""

    def missing(model: Model) -> str | None:
        return next((sentence for one in requirements if (sentence := one(model)) is not None), None)

    return missing


def missing_head(layer: int, head: int, layers: int, heads: int) -> str | None:
    """The sentence on a head that is not there."""
    if 0 <= layer < layers and 0 <= head < heads:
        return None
    return f"needs head {head} of layer {layer}; the model has layers 0 to {layers - 1} with heads 0 to {heads - 1}"
