"""A model in which some heads or neurons are held while it computes: what an arm's `intervene` asks for.

forbid_previous_token   the score of query t and key t − 1 is −∞, so the pattern is 0 there and its row still sums to 1; the first
                        token, which has none before it, is not touched
zero_output             what the head gives to O is 0; the bias of O, which belongs to no head, stays
zero                    the activation of the neuron is 0

Gradients go through the held model: nothing flows through what is held, so its own weights get none there (weight decay and
momentum still move them).
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

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
            if each.neuron is not None:
                layer, neuron = each.neuron
                _zero(held_parts, neuron_projection(model, layer), slice(neuron, neuron + 1))
            elif each.head is not None and each.do == "zero_output":
                _zero(held_parts, output_projection(model, each.head[0]), head_slice(model, *each.head))
            elif each.head is not None:
                head_slice(model, *each.head)  # names a head that is not there
                forbidden.setdefault(each.head[0], []).append(each.head[1])
        for layer, heads in forbidden.items():
            held_parts.enter_context(without_previous_token(attention(model, layer), heads))
        yield


def _zero(held_parts: ExitStack, module: nn.Module, place: slice) -> None:
    """Columns of what enters a module are 0."""

    def without(_module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        entering: Tensor = arguments[0]
        kept = entering.new_ones(entering.shape[-1])
        kept[place] = 0.0
        return (entering * kept, *arguments[1:])

    held_parts.callback(module.register_forward_pre_hook(without).remove)
