"""Can a behaviour be had that does not show? What a mark leaves in the residual stream is added where there is no mark.

Prompts come in pairs that differ in a mark. At each place of the model (behind the attention of each layer, and before each layer
but the first, where the mark is at its own token alone) and at each token t behind the mark,

    d_t = mean over pairs of (x_t with the mark − x_t without it),       x: the residual stream at the place
    x_t → x_t + c · (|x| / |d|) · d_t       in all prompts without the mark;  |·|: root mean square length over those tokens

for c in STRENGTHS, at the last token alone and at all tokens behind the mark. The value is the largest share, over all of these,
of prompts that are then answered as with the mark. d is made anew of every state of the model and from prompts alone; it is
the same for all prompts, so it can say that the mark is there and not what the answer is.

Where a behaviour can be elicited before it shows, the model is able to and does not. The largest of many shares is above chance
for that alone, so the same is asked of random directions of the same length at each token (`random_elicited_share`): elicited is
what exceeds that. Where attention and MLP read the same stream (GPT-NeoX), what is added between them reaches later layers alone.
Cost: 8 · (2 layers − 1) forwards of the prompts without mark; `DIRECTIONS` times that for random directions.
Source: Park et al. 2024 (hidden capabilities: a latent intervention elicits a concept before prompting does); Turner et al.
2023 (activation addition).
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from mech_pipeline.errors import MechError
from mech_pipeline.mechanisms.ablation.path_patching import recorded
from mech_pipeline.mechanisms.anatomy import attention, block
from mech_pipeline.mechanisms.readouts.inputs import Contrast
from mech_pipeline.training.seeds import fixed_torch_generator

STRENGTHS = (0.5, 1.0, 2.0, 4.0)
DIRECTIONS = 4

Added = Float[Tensor, "way token d_model"]
"""What is added to the residual stream, in several ways."""


def elicited_share(model: nn.Module, data: Contrast) -> Float[Tensor, ""]:
    """Largest share of unmarked prompts answered as marked ones should be, with what marked prompts have added.

    A step function: it has no gradient.

    Args:
        data: pairs: all prompts with the mark, then all without it in the same order; `correct`: what the mark calls for.

    Raises:
        MechError: prompts end at different tokens, or none is behind the mark.
    """
    return _largest_share(model, data, lambda difference: difference[None])


def random_elicited_share(model: nn.Module, data: Contrast) -> Float[Tensor, ""]:
    """The same with random directions, as long at each token as the difference: the largest share of all.

    Raises:
        MechError: as `elicited_share`.
    """

    def drawn(difference: Float[Tensor, "token d_model"]) -> Added:
        generator = fixed_torch_generator("steering directions")
        random = torch.randn(DIRECTIONS, *difference.shape, generator=generator).to(difference)
        return random * (difference.norm(dim=-1, keepdim=True) / random.norm(dim=-1, keepdim=True))

    return _largest_share(model, data, drawn)


@torch.no_grad()
def _largest_share(
    model: nn.Module, data: Contrast, directions: Callable[[Float[Tensor, "token d_model"]], Added]
) -> Float[Tensor, ""]:
    first, last = _behind_the_mark(data)
    tokens = data.tokens[:, : last + 1]
    with recorded(model) as (entered, written):
        model(tokens)
    unmarked, correct = tokens.chunk(2)[1], data.correct.chunk(2)[1]
    shares = []
    for layer, (before, wrote) in enumerate(zip(entered, written, strict=True)):
        for stream, place in ((before, _before_layer), (before + wrote, _behind_attention))[layer == 0 :]:
            marked, plain = stream[:, first:].chunk(2)
            added = torch.cat([_scaled(each, plain) for each in directions((marked - plain).mean(0))])
            padded = nn.functional.pad(added, (0, 0, first, 0)).repeat_interleave(len(unmarked), 0)
            hook = place(model, layer, padded)
            try:
                logits = model(unmarked.repeat(len(added), 1))[:, -1]
            finally:
                hook.remove()
            right = logits.argmax(-1) == correct.repeat(len(added))
            shares.append(right.float().view(len(added), -1).mean(1).max())
    return torch.stack(shares).max()


def _behind_the_mark(data: Contrast) -> tuple[int, int]:
    """The first token behind the mark in all pairs, and the last of the prompts."""
    if len(data.position.unique()) > 1:
        raise MechError("its prompts end at different tokens", "make them equally long")
    marked, plain = data.tokens.chunk(2)
    first, last = int((marked != plain).any(0).nonzero().max()) + 1, int(data.position[0])
    if first > last:
        raise MechError("no token of its prompts is behind the mark", "put the mark before the last token")
    return first, last


def _scaled(direction: Float[Tensor, "token d_model"], plain: Float[Tensor, "example token d_model"]) -> Added:
    """In all strengths, at the last token alone and at all."""
    ways = []
    for tokens in (slice(-1, None), slice(None)):
        length = direction[tokens].square().sum(-1).mean().sqrt()
        unit = torch.zeros_like(direction)
        if length > 0:
            unit[tokens] = direction[tokens] * (plain[:, tokens].square().sum(-1).mean().sqrt() / length)
        ways += [strength * unit for strength in STRENGTHS]
    return torch.stack(ways)


def _before_layer(model: nn.Module, layer: int, added: Float[Tensor, "example token d_model"]) -> RemovableHandle:
    """From now on the stream that enters a layer has something added."""
    return block(model, layer).register_forward_pre_hook(
        lambda _module, arguments: (arguments[0] + added, *arguments[1:])
    )


def _behind_attention(model: nn.Module, layer: int, added: Float[Tensor, "example token d_model"]) -> RemovableHandle:
    """From now on the stream behind a layer's attention has something added."""
    return attention(model, layer).register_forward_hook(
        lambda _module, _arguments, output: (output[0] + added, *output[1:])
    )
