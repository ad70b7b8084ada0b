"""What one MLP neuron does. Cost: one forward of the probe."""

from jaxtyping import Float
from torch import Tensor, nn

from mech_pipeline.errors import MechError
from mech_pipeline.mechanisms.anatomy import input_of, neuron_projection
from mech_pipeline.mechanisms.readouts.inputs import Marked
from mech_pipeline.mechanisms.readouts.readout import Readout
from mech_pipeline.mechanisms.requirements import needs_neuron


def neuron_activation(layer: int, neuron: int) -> Readout[Marked]:
    """Mean activation of a neuron over the marked positions: what multiplies its row of the MLP's second matrix.

    After the activation function, and in Llama after the product with the ungated half.
    """

    def compute(model: nn.Module, data: Marked) -> Float[Tensor, ""]:
        activations = input_of(model, neuron_projection(model, layer), data.tokens)
        if not 0 <= neuron < activations.shape[-1]:
            raise MechError(
                f"needs neuron {neuron} of layer {layer}; it has neurons 0 to {activations.shape[-1] - 1}",
                "name a neuron that the model has",
            )
        return (activations[..., neuron] * data.chosen).sum() / data.chosen.sum()

    return Readout(compute, needs_neuron(layer, neuron))
