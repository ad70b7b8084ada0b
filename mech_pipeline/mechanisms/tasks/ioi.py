"""Indirect-object identification: prompts, what the model answers, and which heads do what Wang et al. found.

    When Mary and John went to the store, John gave a drink to → Mary
         IO      S1  S1+1               S2                END

Attention scores are corrected for chance, so that they compare across positions:

    (A − U) / (1 − U),    A: mean attention from the query to the key,  U: the same under uniform attention

1: all attention; 0: as much as uniform attention; below 0: less. They describe and do not show a cause.
Source: Wang et al. 2022, §3 (circuit), appendix A (prompts); Tigges et al. 2024 (the same over training).
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mech_pipeline.data.languages import ioi
from mech_pipeline.mechanisms.probe import Probe
from mech_pipeline.mechanisms.prompts import contrasts, prompts
from mech_pipeline.mechanisms.readouts.inputs import Contrast
from mech_pipeline.mechanisms.source import ProbeSource
from mech_pipeline.training.bridge_type import TransformerBridge

PER_KIND = 6
"""Prompts of each template and order of names."""
TOP = 5
Positions = Int[Tensor, " example"]


@dataclass(frozen=True)
class IoiPrompts(Contrast):
    """Prompts, the indirect object as correct answer and the subject as wrong one; `position` is END.

    Attributes:
        indirect_object, subject, again: positions of IO, S1 and S2.
    """

    indirect_object: Positions
    subject: Positions
    again: Positions


def ioi_prompts(source: ProbeSource) -> IoiPrompts:
    """Every template in both orders of names, with random names, places and objects.

    Names and sentences are drawn by a stream of the probe's own. A prompt may occur in training by chance.

    Raises:
        MechError: a name is more than one token in this vocabulary, or a prompt does not fit the context.
    """
    drawn, _ = _drawn(source)
    asked = contrasts(source, [(s.prompt, f" {s.indirect_object}", f" {s.subject}") for s in drawn])
    named, twice = (asked.tokens == answer[:, None] for answer in (asked.correct, asked.wrong))
    place = torch.arange(asked.tokens.shape[1])
    return IoiPrompts(
        asked.tokens,
        asked.position,
        asked.correct,
        asked.wrong,
        indirect_object=named.int().argmax(1),
        subject=twice.int().argmax(1),
        again=(twice * place).argmax(1),
    )


PROMPTS = ("ioi", ioi_prompts)
"""Name and maker of the detectors' probe data."""


def abc_prompts(source: ProbeSource) -> Int[Tensor, "example token"]:
    """The prompts of `ioi_prompts`, token by token, with three other names: nothing in them determines an answer.

    Source: Wang et al. 2022, §2 (p_ABC).
    """
    drawn, generator = _drawn(source)
    return prompts(source, [ioi.without_answer(sentence, generator).prompt for sentence in drawn]).tokens


def _drawn(source: ProbeSource) -> tuple[list[ioi.Sentence], np.random.Generator]:
    """The sentences, and the stream after them."""
    generator = source.generator()
    kinds = [(template, order) for template in ioi.TEMPLATES for order in ioi.ORDERS for _ in range(PER_KIND)]
    return [ioi.sentence(generator, *kind) for kind in kinds], generator


def accuracy(model: nn.Module, data: Contrast) -> Float[Tensor, ""]:
    """Share of prompts whose most likely next token is the correct answer. A step function: it has no gradient."""
    example = torch.arange(len(data.tokens), device=data.tokens.device)
    return (model(data.tokens)[example, data.position].argmax(-1) == data.correct).float().mean()


def beyond_chance(
    pattern: Float[Tensor, "example head query key"], query: Positions, key: Positions
) -> Float[Tensor, " head"]:
    """(A − U) / (1 − U) of each head; a causal query at position q has U = 1/(q + 1).

    >>> one = torch.zeros(1, 1, 4, 4); one[0, 0, 3, 1] = 1.0
    >>> beyond_chance(one, torch.tensor([3]), torch.tensor([1])).item()
    1.0
    """
    example = torch.arange(len(pattern), device=pattern.device)
    mass = pattern[example, :, query, key].mean(0)
    uniform = (1 / (query + 1)).mean()
    return (mass - uniform) / (1 - uniform)


def name_mover(bridge: TransformerBridge, patterns: list[Tensor], probe: Probe) -> Float[Tensor, "layer head"]:
    """Attention from END to the indirect object."""
    data = _prompts(probe)
    return _attention(bridge, data, data.position, data.indirect_object)


def s_inhibition(bridge: TransformerBridge, patterns: list[Tensor], probe: Probe) -> Float[Tensor, "layer head"]:
    """Attention from END to the subject's second mention."""
    data = _prompts(probe)
    return _attention(bridge, data, data.position, data.again)


def duplicate(bridge: TransformerBridge, patterns: list[Tensor], probe: Probe) -> Float[Tensor, "layer head"]:
    """Attention from the subject's second mention to its first."""
    data = _prompts(probe)
    return _attention(bridge, data, data.again, data.subject)


def induction(bridge: TransformerBridge, patterns: list[Tensor], probe: Probe) -> Float[Tensor, "layer head"]:
    """Attention from the subject's second mention to the token after its first."""
    data = _prompts(probe)
    return _attention(bridge, data, data.again, data.subject + 1)


def previous(bridge: TransformerBridge, patterns: list[Tensor], probe: Probe) -> Float[Tensor, "layer head"]:
    """Attention from the token after the subject's first mention to that mention."""
    data = _prompts(probe)
    return _attention(bridge, data, data.subject + 1, data.subject)


def direct_effect(bridge: TransformerBridge, patterns: list[Tensor], probe: Probe) -> Float[Tensor, "layer head"]:
    """What each head adds directly to logit(IO) − logit(S) at END, mean over prompts, nats.

    ⟨W_U[IO] − W_U[S], W_O^h z^h⟩, through the final norm at the scale it has there, if there is one. Positive: a name mover or a
    backup; negative: a negative name mover. Paths through later layers are not in it.
    Source: Wang et al. 2022, §3.1 (direct effects on the logit difference).
    """
    data = _prompts(probe)
    layers = range(bridge.cfg.n_layers)
    names = [f"blocks.{layer}.attn.hook_z" for layer in layers] + ["ln_final.hook_scale"]
    with torch.no_grad():
        _, cache = bridge.run_with_cache(data.tokens, names_filter=lambda name: name in names)
    example = torch.arange(len(data.tokens), device=data.tokens.device)
    toward = (bridge.W_U[:, data.correct] - bridge.W_U[:, data.wrong]).T
    if "ln_final.hook_scale" in cache:
        toward = toward * bridge.ln_final.weight / cache["ln_final.hook_scale"][example, data.position]
        if bridge.cfg.normalization_type in ("LN", "LNPre"):
            toward = toward - toward.mean(-1, keepdim=True)
    mixed = torch.stack([cache[f"blocks.{layer}.attn.hook_z"][example, data.position] for layer in layers])
    return torch.einsum("leha,lhad,ed->lh", mixed, bridge.W_O.detach(), toward.detach()) / len(data.tokens)


def name_copying(bridge: TransformerBridge, patterns: list[Tensor], probe: Probe) -> Float[Tensor, "layer head"]:
    """Share of names in IO, S1 and S2 that a head would raise to the top, minus the share that it would lower to the bottom.

    x W_V^h W_O^h W_U, x the residual stream after the first layer (before it, for its own heads) at the name; the name is
    among the five largest logits, or among the five smallest. 1: a name mover's copying; −1: copy suppression; about 0
    by chance. Norms and biases are left out.
    Source: Wang et al. 2022, §3.1 (copy score, −W_OV for negative heads); Tigges et al. 2024 (top five, IO, S1 and S2).
    """
    data = _prompts(probe)
    with torch.no_grad():
        names = ["blocks.0.hook_resid_pre", "blocks.0.hook_resid_post"]
        _, cache = bridge.run_with_cache(data.tokens, names_filter=names)
        example = torch.arange(len(data.tokens), device=data.tokens.device)
        places = (data.indirect_object, data.subject, data.again)
        name = torch.cat([data.tokens[example, place] for place in places])
        streams = [torch.cat([cache[hook][example, place] for place in places]) for hook in names]
        values, outputs = bridge.W_V, bridge.W_O
        values = values.repeat_interleave(outputs.shape[1] // values.shape[1], dim=1)  # heads that share values
        return torch.stack(
            [
                torch.stack(
                    [
                        _copied(streams[min(layer, 1)] @ values[layer, head] @ outputs[layer, head] @ bridge.W_U, name)
                        for head in range(outputs.shape[1])
                    ]
                )
                for layer in range(bridge.cfg.n_layers)
            ]
        )


def _copied(logits: Float[Tensor, "name vocabulary"], name: Int[Tensor, " name"]) -> Float[Tensor, ""]:
    """Share whose own logit is among the TOP largest minus share whose is among the TOP smallest."""
    own = logits.gather(1, name[:, None])
    above, below = (logits > own).sum(1), (logits < own).sum(1)
    return (above < TOP).float().mean() - (below < TOP).float().mean()


def _prompts(probe: Probe) -> IoiPrompts:
    return probe.of(*PROMPTS)


def _attention(
    bridge: TransformerBridge, data: IoiPrompts, query: Positions, key: Positions
) -> Float[Tensor, "layer head"]:
    names = [f"blocks.{layer}.attn.hook_pattern" for layer in range(bridge.cfg.n_layers)]
    with torch.no_grad():
        _, cache = bridge.run_with_cache(data.tokens, names_filter=names)
    return torch.stack([beyond_chance(cache[name], query, key) for name in names])
