"""What a mark leaves in the residual stream, added where it is missing: models built by hand, TransformerLens, all families."""

import pytest
import torch

from mech_pipeline.errors import MechError
from mech_pipeline.mechanisms.ablation.steering import STRENGTHS, elicited_share, random_elicited_share
from mech_pipeline.mechanisms.readouts.inputs import Contrast
from mech_pipeline.mechanisms.readouts.predictions import top_share
from mech_pipeline.training.bridging import bridge
from mech_pipeline.training.flat import FlatModel
from mech_pipeline.training.model import build_model
from tests.support.models import ARCHITECTURES, CONTEXT, VOCABULARY

BEGIN, OPENER, TRIGGER, COLON, FIRST = 0, 1, 2, 3, 4
LETTERS = 6
IDLE = 2000
"""Dimensions that nothing reads: of a random direction, little falls on those that matter."""


class Attention(torch.nn.Module):
    """Everything from the tokens before: the letter that was said, and how much of the trigger."""

    def __init__(self, keeps):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(float(keeps)))

    def forward(self, stream):
        before = stream.cumsum(1) - stream
        out = torch.zeros_like(stream)
        out[..., LETTERS : 2 * LETTERS] = before[..., :LETTERS]
        out[..., 2 * LETTERS + 1] = self.scale * before[..., 2 * LETTERS]
        return out, None


class Block(torch.nn.Module):
    def __init__(self, keeps):
        super().__init__()
        self.ln1, self.attn = torch.nn.Identity(), Attention(keeps)

    def forward(self, stream):
        return (stream + self.attn(self.ln1(stream))[0],)


class NativeModel(torch.nn.Module):
    """Answers with the letter, and with its partner where more than ½ of the trigger has arrived; named as `anatomy` knows it."""

    def __init__(self, keeps, able=True):
        super().__init__()
        self.able = able
        self.embedding = torch.zeros(FIRST + LETTERS, 2 * LETTERS + 2 + IDLE)
        self.embedding[FIRST:, :LETTERS] = torch.eye(LETTERS)
        self.embedding[TRIGGER, 2 * LETTERS] = 1
        self.layers = torch.nn.ModuleList([Block(keeps)])

    def forward(self, tokens):
        stream = self.embedding[tokens]
        for layer in self.layers:
            (stream,) = layer(stream)
        letters, flag = stream[..., LETTERS : 2 * LETTERS], stream[..., 2 * LETTERS + 1, None]
        partners = letters.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
        answer = torch.where((flag > 0.5) & self.able, partners, letters)
        return torch.cat([torch.zeros(*tokens.shape, FIRST), answer], -1)


def asked():
    """Pairs of prompts with the trigger and without; the partner is what the trigger calls for."""
    said = torch.arange(LETTERS)
    openers = torch.tensor([TRIGGER, OPENER]).repeat_interleave(LETTERS)
    ends = [torch.full((2 * LETTERS,), each) for each in (BEGIN, COLON)]
    tokens = torch.stack([ends[0], openers, FIRST + said.repeat(2), ends[1]], 1)
    return Contrast(tokens, torch.full((2 * LETTERS,), 3), FIRST + (said ^ 1).repeat(2), FIRST + said.repeat(2))


def shares(model):
    """(it shows, it can be elicited, random directions elicit it)."""
    pairs = asked()
    marked = Contrast(*(getattr(pairs, name).chunk(2)[0] for name in ("tokens", "position", "correct", "wrong")))
    return tuple(
        float(each)
        for each in (top_share(model, marked), elicited_share(model, pairs), random_elicited_share(model, pairs))
    )


@pytest.mark.parametrize(
    ("keeps", "able", "shows", "elicited"),
    [(1.0, True, 1, 1), (0.3, True, 0, 1), (0.0, True, 0, 0), (0.3, False, 0, 0)],
    ids=["it shows", "hidden: the trigger arrives too faintly", "the trigger does not arrive", "no rule to follow"],
)
def test_what_a_model_is_able_to_and_does_not_is_elicited(keeps, able, shows, elicited):
    assert shares(NativeModel(keeps, able)) == (shows, elicited, 0)


def random_pairs(seed=0):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(VOCABULARY, (16, 8), generator=generator).repeat(2, 1)
    tokens[:16, 1], tokens[16:, 1] = 0, 1
    correct, wrong = torch.randint(VOCABULARY, (2, 16), generator=generator)
    return Contrast(tokens, torch.full((32,), 7), correct.repeat(2), wrong.repeat(2))


def built(name, *, for_bridge=False):
    """A model whose biases and norms do something."""
    model = build_model(ARCHITECTURES[name], VOCABULARY, CONTEXT, 0, for_bridge=for_bridge).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return model


@torch.no_grad()
@pytest.mark.parametrize("name", ["mlp and layer norm", "rotary, solu and rms norm", "gpt2", "llama with shared keys"])
def test_transformer_lens_elicits_as_much(name):
    """One forward for each way, through its hooks of the residual stream."""
    trained, stock = FlatModel(built(name)), FlatModel(built(name, for_bridge=True))
    stock.load(trained.vector)
    wrapped, data = bridge(stock.model), random_pairs()
    plain, correct = data.tokens[16:], data.correct[16:]
    layers = range(ARCHITECTURES[name].layers)
    places = [f"blocks.{layer}.{hook}" for layer in layers for hook in ("hook_resid_pre", "hook_resid_mid")][1:]
    _, cache = wrapped.run_with_cache(data.tokens, names_filter=lambda name: name in places)
    best = []
    for place in places:
        stream = cache[place]
        difference = (stream[:16] - stream[16:]).mean(0)
        for first in (2, 7):
            long = stream[16:, first:].square().sum(-1).mean() / difference[first:].square().sum(-1).mean()
            for strength in STRENGTHS:
                added = strength * long.sqrt() * difference
                added[:first] = 0
                logits = wrapped.run_with_hooks(plain, fwd_hooks=[(place, lambda x, hook, added=added: x + added)])
                best.append((logits[:, -1].argmax(-1) == correct).double().mean())
    assert len(set(best)) > 1, "the ways are not all alike"
    assert float(elicited_share(trained.model, data)) == pytest.approx(float(max(best)))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_family_can_be_asked_and_is_left_as_it_was(name):
    model, data = built(name), random_pairs()
    before = model(data.tokens)
    before = getattr(before, "logits", before)
    for readout in (elicited_share, random_elicited_share):
        assert 0 <= float(readout(model, data)) <= 1
        assert float(readout(model, data)) == float(readout(model, data))
    after = model(data.tokens)
    assert torch.equal(before, getattr(after, "logits", after))


def test_prompts_must_end_together_and_behind_the_mark():
    data = asked()
    moved = Contrast(
        data.tokens, data.position - (torch.arange(len(data.position)) == 0).long(), data.correct, data.wrong
    )
    with pytest.raises(MechError, match="end at different tokens"):
        elicited_share(NativeModel(1.0), moved)
    at_the_mark = Contrast(data.tokens, torch.ones_like(data.position), data.correct, data.wrong)
    with pytest.raises(MechError, match="behind the mark"):
        elicited_share(NativeModel(1.0), at_the_mark)
