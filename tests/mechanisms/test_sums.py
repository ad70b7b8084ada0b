"""Sums with a carry: prompts, models that carry, never carry or always do, and heads that look at the digits."""

import re

import pytest
import torch

from mech_pipeline.data.corpora import read_corpus
from mech_pipeline.data.tokenizer import train_tokenizer
from mech_pipeline.errors import MechError
from mech_pipeline.mechanisms.registry import DETECTORS, MECHANISMS
from mech_pipeline.mechanisms.tasks.sums import CARRIES, carries
from mech_pipeline.spec.data import Corpus
from mech_pipeline.spec.model import Model
from mech_pipeline.training.bridging import bridge
from mech_pipeline.training.model import build_model
from tests.support.models import prompt_probe


def tokenizer_of(language, **options):
    spec = Corpus.model_validate({"generated": {"language": language, "documents": 400, **options}})
    return train_tokenizer(list(read_corpus(spec)), 300)


@pytest.fixture(scope="module")
def tokenizer():
    return tokenizer_of("sums", below=50)


@pytest.fixture(scope="module")
def probe(tokenizer):
    return prompt_probe(tokenizer, 16)


@pytest.fixture(scope="module")
def data(probe):
    return probe.of(*CARRIES)


def parsed(tokenizer, tokens):
    """Units and tens of both numbers, and the units of the result, of each prompt."""
    return [tuple(map(int, re.findall(r"\d", tokenizer.decode(row)))) for row in tokens.tolist()]


def test_half_of_the_prompts_carry_and_right_and_wrong_differ_by_the_carry_alone(tokenizer, data):
    right, wrong = (tokenizer.decode_batch(answer[:, None].tolist()) for answer in (data.correct, data.wrong))
    carried = 0
    for (a, b, c, d, units), one, other in zip(parsed(tokenizer, data.tokens), right, wrong, strict=True):
        result = a + 10 * b + c + 10 * d
        assert result % 10 == units
        assert result // 10 == int(one)
        carry = a + c >= 10
        assert (b + d + (not carry)) == int(other)
        carried += carry
    assert 2 * carried == len(data.tokens)


def test_corrupted_prompts_have_the_same_tens_and_the_other_carry(tokenizer, probe, data):
    made = probe.of(CARRIES[0], MECHANISMS["carry_logit_difference"].corrupted)
    clean, corrupted = parsed(tokenizer, data.tokens), parsed(tokenizer, made)
    for (a, b, c, d, _), (e, f, g, h, units) in zip(clean, corrupted, strict=True):
        assert (b, d) == (f, h)
        assert (a + c >= 10) != (e + g >= 10)
        assert (e + g) % 10 == units
        assert max(e, g) < 10


class Adding(torch.nn.Module):
    """Adds tens, and a carry by a rule of its own."""

    def __init__(self, tokenizer, carry):
        super().__init__()
        self.tokenizer, self.carry = tokenizer, carry
        self.digits = [tokenizer.encode(f" {digit}").ids[0] for digit in range(10)]

    def forward(self, tokens):
        logits = torch.zeros(*tokens.shape, self.tokenizer.get_vocab_size())
        for row, (a, b, c, d, _) in enumerate(parsed(self.tokenizer, tokens)):
            logits[row, -1, self.digits[b + d + self.carry(a + c >= 10)]] = 4.0
        return logits


@pytest.mark.parametrize(
    ("carry", "accuracy", "difference"), [(int, 1, 4), (lambda _: 0, 0.5, 0), (lambda carries: not carries, 0, -4)]
)
def test_models_that_carry_never_carry_and_carry_wrongly(tokenizer, probe, carry, accuracy, difference):
    model = Adding(tokenizer, carry)
    assert float(MECHANISMS["carry_accuracy"].value(model, probe)) == pytest.approx(accuracy)
    assert float(MECHANISMS["carry_logit_difference"].value(model, probe)) == pytest.approx(difference)


def test_knock_out_is_what_a_model_without_those_edges_answers(tokenizer, probe, data):
    """One layer: the logits follow from the pattern, so a brute-force pattern without the edges gives the same."""
    model = build_model(Model(layers=1, heads=2, d_model=16), tokenizer.get_vocab_size(), 16, 0, for_bridge=True)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
        wrapped = bridge(model)
        found = DETECTORS["carry_knockout"].score(wrapped, [], probe)
        _, cache = wrapped.run_with_cache(data.tokens)
        rows, values = cache["blocks.0.attn.hook_pattern"][:, :, -1], cache["blocks.0.attn.hook_v"]
        for head in range(2):
            row = rows[:, head]
            left = row.clone()
            left[:, [1, 2, 4, 5]] = 0
            change = left / left.sum(1, keepdim=True) - row
            moved = torch.einsum("ek,ekd->ed", change, values[:, :, head]) @ wrapped.W_O[0, head] @ wrapped.W_U
            drop = moved.gather(1, data.correct[:, None]) - moved.gather(1, data.wrong[:, None])
            assert float(found[0, head]) == pytest.approx(-float(drop.mean()), rel=1e-3, abs=1e-5)
    assert found.abs().max() > 1e-3


def test_a_vocabulary_without_digits_is_named():
    with pytest.raises(MechError, match="no token for|one token"):
        prompt_probe(tokenizer_of("dyck"), 40).of("sums", carries)
