"""The bracket language, its closings, and heads and models that are built by hand."""

import pytest
import torch

from mech_pipeline.data.corpora import read_corpus
from mech_pipeline.data.languages import dyck
from mech_pipeline.data.tokenizer import train_tokenizer
from mech_pipeline.errors import MechError
from mech_pipeline.mechanisms.tasks.brackets import (
    bracket_accuracy,
    bracket_logit_difference,
    closings,
    knockout,
    matching,
    other_kinds,
)
from mech_pipeline.spec.data import Corpus
from mech_pipeline.spec.model import Model
from mech_pipeline.spec.seeds import numpy_generator
from mech_pipeline.training.bridging import bridge
from mech_pipeline.training.model import build_model
from tests.support.models import prompt_probe

CONTEXT = 42


@pytest.fixture(scope="module")
def tokenizer():
    spec = Corpus.model_validate({"generated": {"language": "dyck", "documents": 300}})
    return train_tokenizer(list(read_corpus(spec)), 300)


@pytest.fixture(scope="module")
def probe(tokenizer):
    return prompt_probe(tokenizer, CONTEXT)


@pytest.fixture(scope="module")
def data(probe):
    return probe.of("brackets", closings)


def test_words_are_balanced_and_of_bounded_depth():
    deepest = 0
    for number in range(100):
        made = dyck.word(numpy_generator(number, "test"))
        stack = []
        for place, bracket in enumerate(made.brackets):
            assert made.match[made.match[place]] == place
            if bracket in dyck.OPENERS:
                stack.append(place)
                deepest = max(deepest, len(stack))
            else:
                assert stack.pop() == made.match[place]
                assert dyck.OPENERS.index(made.brackets[made.match[place]]) == dyck.CLOSERS.index(bracket)
        assert not stack
    assert deepest == dyck.DEPTH


def test_closings_point_at_their_openers_and_decoys_of_the_same_depth(data, tokenizer):
    opener_tokens = torch.tensor([tokenizer.encode(f" {bracket}").ids[0] for bracket in dyck.OPENERS])
    assert (data.tokens[data.example, data.opener] == opener_tokens[data.correct]).all()
    assert (data.tokens[data.example, data.query + 1] == data.closers[data.correct]).all()
    assert (data.query - data.opener >= 2).all()
    some = data.decoy >= 0
    assert 0.5 < float(some.float().mean()) < 1
    opens = torch.isin(data.tokens, opener_tokens).int()
    shuts = torch.isin(data.tokens, data.closers).int()
    before = (opens - shuts).cumsum(1) - opens  # brackets open before each opener
    example, decoy, opener = data.example[some], data.decoy[some], data.opener[some]
    assert (before[example, decoy] == before[example, opener]).all()
    assert (decoy != opener).all()
    assert torch.isin(data.tokens[example, decoy], opener_tokens).all()


def looking(data, tokenizer, key):
    """A bridge around one head that looks from every query to the given position."""
    count, length = data.tokens.shape
    pattern = torch.eye(length).repeat(count, 1, 1, 1)
    pattern[data.example, 0, data.query] = 0
    pattern[data.example, 0, data.query, key] = 1
    spec = Model(layers=1, heads=1, d_model=16)
    wrapped = bridge(build_model(spec, tokenizer.get_vocab_size(), CONTEXT, 0, for_bridge=True))
    wrapped.run_with_cache = lambda tokens, names_filter: (None, {"blocks.0.attn.hook_pattern": pattern})
    return wrapped


def test_a_bracket_head_scores_one_and_others_nothing(data, tokenizer, probe):
    assert float(matching(looking(data, tokenizer, data.opener), [], probe)) == pytest.approx(1)
    assert float(matching(looking(data, tokenizer, data.query - 1), [], probe)) <= 0.05  # the previous token
    away = torch.where(data.decoy >= 0, data.decoy, data.opener)
    assert float(matching(looking(data, tokenizer, away), [], probe)) == pytest.approx(-1)


class Closing(torch.nn.Module):
    """A model that knows, or always mistakes, what closes."""

    def __init__(self, data, shift):
        super().__init__()
        self.data, self.shift = data, shift

    def forward(self, tokens):
        logits = torch.zeros(*tokens.shape, 400)
        kind = self.data.closers[(self.data.correct + self.shift) % len(self.data.closers)]
        logits[self.data.example, self.data.query, kind] = 4.0
        return logits


def test_models_that_always_and_never_know(data):
    assert float(bracket_accuracy(Closing(data, 0), data)) == 1
    assert float(bracket_accuracy(Closing(data, 1), data)) == 0
    assert float(bracket_logit_difference(Closing(data, 0), data)) == pytest.approx(4)
    assert float(bracket_logit_difference(Closing(data, 1), data)) == pytest.approx(-4 / 3)


def test_knock_out_is_what_a_model_without_the_edge_answers(data, tokenizer, probe):
    """One layer: the logits follow from the pattern, so a brute-force pattern without the edge gives the same."""
    model = build_model(Model(layers=1, heads=2, d_model=16), tokenizer.get_vocab_size(), CONTEXT, 0, for_bridge=True)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    wrapped = bridge(model)
    found = knockout(wrapped, [], probe)
    with torch.no_grad():
        _, cache = wrapped.run_with_cache(data.tokens)
        pattern, values = cache["blocks.0.attn.hook_pattern"], cache["blocks.0.attn.hook_v"]
        outputs, unembed = wrapped.W_O[0], wrapped.W_U
        for head in range(2):
            drop = []
            for example, query, opener, correct in zip(
                data.example, data.query, data.opener, data.correct, strict=True
            ):
                row = pattern[example, head, query]
                left = row.clone()
                left[opener] = 0
                change = ((left / left.sum() - row) @ values[example, :, head]) @ outputs[head] @ unembed
                change = change[data.closers]
                drop.append(change[correct] - (change.sum() - change[correct]) / (len(change) - 1))
            assert float(found[0, head]) == pytest.approx(-float(torch.stack(drop).mean()), rel=1e-3, abs=1e-5)
    assert found.abs().max() > 1e-3


def test_a_vocabulary_without_these_brackets_is_named():
    text = [*read_corpus(Corpus.model_validate({"generated": {"language": "ioi", "documents": 200}}))]
    with pytest.raises(MechError, match="one token"):
        prompt_probe(train_tokenizer(text, 300), 200).of("brackets", closings)
    words = [*read_corpus(Corpus.model_validate({"generated": {"language": "dyck", "documents": 200}}))]
    with pytest.raises(MechError, match="does not fit: it has"):
        prompt_probe(train_tokenizer(words, 300), 20).of("brackets", closings)


def test_other_kinds_keep_the_nesting(probe, data, tokenizer):
    other = probe.of("brackets", other_kinds)
    assert other.shape == data.tokens.shape
    openers = torch.tensor([tokenizer.encode(f" {b}", add_special_tokens=False).ids[0] for b in dyck.OPENERS])
    assert torch.equal(torch.isin(other, openers), torch.isin(data.tokens, openers))
    answers = other[data.example, data.query + 1]
    right = (answers == data.closers[data.correct]).float().mean()
    assert 0.1 < float(right) < 0.4, "right by chance, one of four kinds"
