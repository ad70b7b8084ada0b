"""A model in which some heads or neurons are held while it computes: what an arm's `intervene` asks for.

forbid_previous_token   the score of query t and key t − 1 is −∞, so the pattern is 0 there and its row still sums to 1; the first
                        token, which has none before it, is not touched
zero_output             what the head gives to O is 0; the bias of O, which belongs to no head, stays
mean_output             what the head gives to O is the same everywhere: its mean over all examples and positions of the batch
zero                    the activation of the neuron is 0
mean                    the activation of the neuron is its mean over all examples and positions of the batch
clamp                   the activation of the neuron is `value`

A mean is that of the update's own batch under the model as it then is, and a constant to the gradient: the part still writes
what it writes on average, and nothing of what it reads. (Mean ablation: Wang et al. 2022, §3.2.)
Gradients go through the held model: nothing flows through what is held, so its own weights get none there (weight decay and
momentum still move them).
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from mech_pipeline.mechanisms.ablation.columns import constant, mean_over_positions, replaced_columns
from mech_pipeline.mechanisms.anatomy import attention, head_slice, neuron_projection, output_projection
from mech_pipeline.spec.intervention import Intervention
from mech_pipeline.training.kernels import without_previous_token


@contextmanager
def held(model: nn.Module, interventions: Sequence[Intervention], update: int) -> Iterator[None]:
    """While the block runs, the model is as the interventions of an update ask for.

    Raises:
        MechError: the model has no such head or neuron.
    """
    with ExitStack() as held_parts:
        forbidden: dict[int, list[int]] = {}
        for each in interventions:
            if not each.applies(update):
                continue
            if each.do != "forbid_previous_token":
                _hold(held_parts, each, *_place(model, each))
            elif each.head is not None:
                head_slice(model, *each.head)  # names a head that is not there
                forbidden.setdefault(each.head[0], []).append(each.head[1])
        for layer, heads in forbidden.items():
            held_parts.enter_context(without_previous_token(attention(model, layer), heads))
        yield


def _place(model: nn.Module, each: Intervention) -> tuple[nn.Module, slice]:
    """The module that the part's activations enter, and their columns there."""
    if each.head is not None:
        return output_projection(model, each.head[0]), head_slice(model, *each.head)
    assert each.neuron is not None, "a head or a neuron is held"
    layer, neuron = each.neuron
    return neuron_projection(model, layer), slice(neuron, neuron + 1)


def _hold(held_parts: ExitStack, each: Intervention, module: nn.Module, place: slice) -> None:
    if each.value is not None:
        held_parts.enter_context(replaced_columns(module, place, constant(each.value)))
    elif each.at_mean:
        held_parts.enter_context(replaced_columns(module, place, mean_over_positions))
    else:
        _zero(held_parts, module, place)


def _zero(held_parts: ExitStack, module: nn.Module, place: slice) -> None:
    """Columns of what enters a module are multiplied by 0: that keeps signs of zeros, and with them the bits of a run."""

    def without(_module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        entering: Tensor = arguments[0]
        kept = entering.new_ones(entering.shape[-1])
        kept[place] = 0.0
        return (entering * kept, *arguments[1:])

    held_parts.callback(module.register_forward_pre_hook(without).remove)
