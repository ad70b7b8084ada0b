"""Models that people have: whatever they do with their parameters, examples get what one backward for each gives."""

import numpy as np
import polars as pl
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from mech_pipeline.attribution.record import TrainingRecord
from mech_pipeline.errors import MechError
from mech_pipeline.training.model import example_losses
from tests.support.own_loops import CONTEXT, ORDER, TOKENS, VOCABULARY, Bigrams, readout, train

WIDTH, RATE = 8, 1e-4


class NanoGPT(nn.Module):
    """Its idioms: positions of one row, tied weights, a bare scale, (logits, loss), all logits only with targets."""

    def __init__(self) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.ln, self.qkv = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3 * WIDTH)
        self.scale = nn.Parameter(torch.full((WIDTH,), 0.9))
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.head.weight = self.wte.weight

    def forward(self, idx, targets=None):
        x = self.wte(idx) + self.wpe(torch.arange(idx.shape[1], device=idx.device))
        query, key, value = self.qkv(self.ln(x))[:, None].chunk(3, dim=-1)
        x = x + self.scale * F.scaled_dot_product_attention(query, key, value, is_causal=True)[:, 0]
        if targets is None:
            return self.head(x[:, [-1], :]), None
        return self.head(x), F.cross_entropy(self.head(x).flatten(0, 1), targets.flatten())


class Einsum(nn.Module):
    """Bare parameters alone, at the top of the module."""

    def __init__(self) -> None:
        super().__init__()
        self.read = nn.Parameter(torch.randn(VOCABULARY, 2, WIDTH) * 0.3)
        self.write = nn.Parameter(torch.randn(2, WIDTH, VOCABULARY) * 0.3)

    def forward(self, tokens):
        return torch.einsum("bthd,hdv->btv", torch.tanh(self.read[tokens]), self.write)


class Shared(nn.Module):
    """A layer used twice, a weight tied by hand, a causal convolution, a layer that sees tokens first."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mlp = nn.Embedding(VOCABULARY, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.conv, self.mix = nn.Conv1d(WIDTH, WIDTH, 2), nn.Linear(WIDTH, WIDTH)

    def forward(self, tokens):
        x = self.embed(tokens)
        x = x + torch.tanh(self.mlp(torch.tanh(self.mlp(x))))
        x = x + self.conv(F.pad(x.transpose(1, 2), (1, 0))).transpose(1, 2)
        x = x + torch.tanh(self.mix(x.transpose(0, 1))).transpose(0, 1)
        return F.linear(x, self.embed.weight)


class Branching(Einsum):
    """Its control flow depends on data, which cannot be vectorised."""

    def forward(self, tokens):
        return super().forward(tokens) * (2.0 if int(tokens[0, 0]) >= 0 else 1.0)


def gpt2():
    """`transformers`' own: Conv1D, tied, biases."""
    sizes = {"n_positions": CONTEXT, "n_embd": WIDTH, "n_layer": 1, "n_head": 2}
    return GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, **sizes))


MODELS = {"nanogpt": NanoGPT, "gpt2": gpt2, "einsum": Einsum, "shared": Shared, "branching": Branching}


def recorded(model, make=lambda p: torch.optim.SGD(p, lr=RATE), updates=2):
    """A record of a few updates, the loss taken as the record takes it."""
    optimizer = make([p for p in model.parameters() if p.requires_grad])
    record = TrainingRecord(model, TOKENS, ORDER[:updates], optimizer)
    flat = record.flat
    for step, batch in enumerate(ORDER[:updates]):
        record.keep(step, optimizer)
        for parameter, own in zip(flat.parameters, _trained(model, flat), strict=True):
            parameter.data.copy_(own.data)
        gradient = flat.named(flat.gradient(example_losses(flat.model, TOKENS[batch]).mean()))
        optimizer.zero_grad()
        for name, own in zip(gradient, _trained(model, flat), strict=True):
            own.grad = gradient[name].clone()
        optimizer.step()
    record.keep(updates, optimizer)
    return record


def _trained(model, flat):
    named = dict(model.named_parameters())
    return [named[slot.name] for slot in flat.slots]


def readout_of(logits_model):
    return logits_model(TOKENS[:3]).log_softmax(-1)[:, :, 2].mean()


@pytest.mark.parametrize("kind", MODELS)
def test_every_example_gets_what_one_backward_for_it_gives(kind):
    torch.manual_seed(0)
    record = recorded(MODELS[kind]().double(), updates=1)
    flat, batch = record.flat, ORDER[0]
    before, after = record._state(0).theta, record._state(1).theta
    nodes, weights = np.polynomial.legendre.leggauss(6)
    path = sum(
        float(weight) / 2 * record._gradient_at(readout_of, before + (float(node) + 1) / 2 * (after - before))
        for node, weight in zip(nodes, weights, strict=True)
    )
    flat.load(before)
    each = torch.stack([flat.gradient(example_losses(flat.model, row[None])[0]) for row in TOKENS[batch]])
    truth = -RATE / len(batch) * each @ path
    ledger = (
        record.ledger(readout_of, 1)
        .filter(term="example")
        .group_by("example", maintain_order=True)
        .agg(pl.col("value").sum())
    )
    found = torch.tensor(ledger["value"].to_list(), dtype=torch.float64)
    assert torch.allclose(found, truth, rtol=1e-6, atol=1e-9 * float(truth.abs().max()))


def test_frozen_parameters_and_those_of_no_optimizer_have_no_rows():
    model = NanoGPT()
    model.wpe.weight.requires_grad_(False)
    record = recorded(model, lambda p: torch.optim.AdamW([x for x in p if x is not model.scale], lr=1e-2, eps=1e-4))
    names = set(record.ledger(readout_of, 2)["component"])
    assert names == {"wte", "ln", "qkv"}
    assert record.influence(readout_of, 2).scores["value"].is_finite().all()


def test_a_window_at_rest_replays():
    model = Bigrams()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    record = TrainingRecord(model, TOKENS, ORDER[:1], optimizer, learning_rates=[0.0])
    record.keep(0, optimizer)
    record.keep(1, optimizer)
    assert record.influence(readout, 1).scores.height == 4
    assert record.ledger(readout, 1)["value"].abs().max() == 0


@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_a_maximum_balances_in_any_unit_and_a_jump_is_refused(unit):
    model = nn.Sequential(
        nn.Embedding(VOCABULARY, WIDTH), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, VOCABULARY)
    )
    record = train(model, lambda p: torch.optim.SGD(p, lr=0.2))

    def highest(logits_model):
        return unit * logits_model(TOKENS[:3]).amax(-1).mean()

    values = []
    for step in (0, 12):
        record.flat.load(record._state(step).theta)
        values.append(float(highest(record.flat.model).detach()))
    assert float(record.ledger(highest, 12)["value"].sum()) == pytest.approx(values[1] - values[0], rel=1e-4)

    def jumping(logits_model):
        logits = logits_model(TOKENS[:3])
        return unit * (logits * 0 + logits.argmax(-1)[..., None]).mean()

    with pytest.raises(MechError, match=r"does not balance: it explains .* → the readout must be continuous"):
        record.ledger(jumping, 12)
