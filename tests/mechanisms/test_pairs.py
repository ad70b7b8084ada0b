"""Induction by two tokens: the sequences, heads built by hand, every model family."""

import numpy as np
import pytest
import torch

from mech_pipeline.mechanisms.detectors.heads import prefix_matching_score
from mech_pipeline.mechanisms.detectors.pairs import draw_repeated_pairs, prefix_matching_2_score, repeated_pairs
from mech_pipeline.mechanisms.probe import Probe, Sequences
from mech_pipeline.mechanisms.registry import DETECTORS
from mech_pipeline.mechanisms.source import Origin
from mech_pipeline.training.bridging import bridge
from mech_pipeline.training.model import build_model
from tests.support.models import ARCHITECTURES, CONTEXT, VOCABULARY


def drawn(vocabulary=50, count=32, context=48, seed=0):
    return draw_repeated_pairs(vocabulary, count, context, np.random.default_rng(seed))


def looking(sequences, tokens_before):
    """A head that attends alike to all places that follow an earlier copy of the last tokens, or to the first place."""
    count, length = sequences.tokens.shape
    pattern = torch.zeros(count, 1, length, length)
    for row, tokens in enumerate(sequences.tokens.tolist()):
        for query in range(length):
            wanted = tokens[max(0, query + 1 - tokens_before) : query + 1]
            keys = [key for key in range(tokens_before, query + 1) if tokens[key - tokens_before : key] == wanted]
            for key in keys or [0]:
                pattern[row, 0, query, key] = 1 / len(keys or [0])
    return pattern


@pytest.mark.parametrize(("vocabulary", "context"), [(50, 48), (512, 64), (13, 12), (5, 8), (3, 64)])
def test_every_pair_is_once_in_the_segment_and_every_token_twice(vocabulary, context):
    sequences = drawn(vocabulary, 32, context)
    assert sequences.tokens.shape == (32, context)
    for tokens, period in zip(sequences.tokens.tolist(), sequences.period.tolist(), strict=True):
        segment = tokens[:period]
        assert tokens == [segment[place % period] for place in range(context)]
        assert {segment.count(token) for token in segment} == {2}
        assert len(set(zip(segment, segment[1:] + segment[:1], strict=True))) == period, "also where it goes round"
        assert period < context - 1, "a pair is repeated"
        if vocabulary > context:
            assert context / 2 <= period <= 3 * context / 4
    if vocabulary > context:
        assert len(set(sequences.period.tolist())) > 1


def test_a_head_that_looks_for_two_tokens_scores_one_and_one_that_looks_for_one_does_not():
    sequences = drawn()
    two, one = looking(sequences, 2), looking(sequences, 1)
    assert float(prefix_matching_2_score(two, sequences.tokens)) == pytest.approx(1)
    assert 0.35 < float(prefix_matching_2_score(one, sequences.tokens)) < 0.5
    assert float(prefix_matching_score(one, sequences.tokens)) == pytest.approx(1), "the other detector cannot tell"
    assert float(prefix_matching_2_score(looking(sequences, 3), sequences.tokens)) > 0.9


def test_uniform_attention_and_attention_to_the_pair_itself_score_little():
    sequences = drawn()
    length = sequences.tokens.shape[1]
    uniform = (torch.ones(length, length).tril() / torch.arange(1, length + 1)[:, None]).expand(32, 1, -1, -1)
    assert float(prefix_matching_2_score(uniform, sequences.tokens)) < 0.04
    itself = looking(sequences, 2).roll(-1, dims=-1)  # the copy, not what followed it
    assert float(prefix_matching_2_score(itself, sequences.tokens)) == 0


def test_tokens_without_a_repeated_pair_have_no_score():
    tokens = torch.tensor([[0, 1, 0, 2, 1]])
    with pytest.raises(ValueError, match="no pair of tokens occurs twice"):
        prefix_matching_2_score(torch.full((1, 1, 5, 5), 0.2), tokens)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_head_of_every_family_is_scored_on_the_same_sequences_every_time(name):
    spec = ARCHITECTURES[name]
    blank = Sequences(torch.zeros(2, CONTEXT, dtype=torch.long), torch.full((2,), 6))
    nothing = Origin(VOCABULARY, 5, lambda: pytest.fail("no tokenizer is needed"), lambda: pytest.fail("nor text"))
    probes = [Probe(blank, blank, nothing) for _ in range(2)]
    wrapped = bridge(build_model(spec, VOCABULARY, CONTEXT, 0, for_bridge=True))
    first, again = (DETECTORS["prefix_matching_2"].score(wrapped, [], probe) for probe in probes)
    assert first.shape == (spec.layers, spec.heads)
    assert torch.equal(first, again)
    tokens = probes[0].of("prefix_matching_2", repeated_pairs).tokens
    _, cache = wrapped.run_with_cache(tokens)
    for layer in range(spec.layers):
        slow = prefix_matching_2_score(cache[f"blocks.{layer}.attn.hook_pattern"], tokens)
        assert torch.allclose(first[layer], slow)
