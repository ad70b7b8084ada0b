"""Detectors on hand-built heads, against TransformerLens, and through the bridge."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mech_pipeline.mechanisms.detectors.heads import (
    copy_suppression,
    copying,
    copying_score,
    duplicate_token_score,
    prefix_matching_score,
)
from mech_pipeline.mechanisms.probe import Probe
from mech_pipeline.mechanisms.registry import DETECTORS
from mech_pipeline.mechanisms.tasks.induction import attention_patterns, copy_advantage, previous_token_score
from mech_pipeline.spec.model import Model
from mech_pipeline.training.bridging import bridge
from mech_pipeline.training.flat import FlatModel
from mech_pipeline.training.model import build_model, example_losses
from tests.support.induction import repeated
from tests.support.models import ARCHITECTURES, CONTEXT, VOCABULARY


def attend(sequences, where):
    """One head that puts all attention at `where(query, period)`, or at position 0 where that is not a past position."""
    count, context = sequences.tokens.shape
    pattern = torch.zeros(count, 1, context, context)
    for row in range(count):
        for query in range(context):
            key = where(query, int(sequences.period[row]))
            pattern[row, 0, query, key if 0 <= key <= query else 0] = 1
    return pattern


@given(seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=15)
def test_hand_built_heads_score_one_on_their_own_detector(seed):
    sequences = repeated(seed=seed)
    induction = attend(sequences, lambda q, p: q - p + 1)
    duplicate = attend(sequences, lambda q, p: q - p)
    previous = attend(sequences, lambda q, p: q - 1)
    assert float(prefix_matching_score(induction, sequences.tokens)) == pytest.approx(1)
    assert float(duplicate_token_score(duplicate, sequences.tokens)) == pytest.approx(1)
    assert float(previous_token_score(previous)) == pytest.approx(1)
    # and (nearly) nothing on the others
    assert float(prefix_matching_score(duplicate, sequences.tokens)) < 0.05
    assert float(duplicate_token_score(previous, sequences.tokens)) < 0.05
    assert float(previous_token_score(induction)) < 0.1


def test_uniform_attention_scores_about_one_over_position():
    sequences = repeated(context=64, vocabulary=512)
    uniform = torch.tril(torch.ones(64, 64)) / torch.arange(1, 65)[:, None]
    pattern = uniform.expand(4, 1, 64, 64)
    assert float(prefix_matching_score(pattern, sequences.tokens)) < 0.05
    assert float(duplicate_token_score(pattern, sequences.tokens)) < 0.05
    assert float(previous_token_score(pattern)) == pytest.approx(sum(1 / (i + 1) for i in range(1, 64)) / 63, rel=1e-5)


def test_tokens_without_repetition_have_no_score():
    with pytest.raises(ValueError, match="no token occurs twice"):
        prefix_matching_score(torch.full((1, 1, 4, 4), 0.25), torch.arange(4)[None])


def test_copying_score_is_one_for_identity_and_minus_one_for_its_negative():
    eye = torch.eye(4).expand(1, 4, 4)
    assert float(copying_score(eye)) == pytest.approx(1)
    assert float(copying_score(-eye)) == pytest.approx(-1)
    rotation = torch.tensor([[[0.0, -1.0], [1.0, 0.0]]])
    assert float(copying_score(rotation)) == pytest.approx(0, abs=1e-6)


def test_copying_equals_the_eigenvalues_of_the_full_vocabulary_circuit():
    model = build_model(ARCHITECTURES["attention-only"], VOCABULARY, CONTEXT, 0, for_bridge=True)
    wrapped = bridge(model)
    scores = copying(wrapped, [], Probe(repeated(), repeated()))
    embed, unembed = model.tok_embed.weight, model.head.weight
    for layer, block in enumerate(model.layers):
        for head in range(2):
            rows = slice(head * 4, head * 4 + 4)
            full = unembed @ block.attn.o.weight[:, rows] @ block.attn.v.weight[rows] @ embed.T
            values = torch.linalg.eigvals(full.double())
            expected = float((values.real.sum() / values.abs().sum()).detach())
            assert float(scores[layer, head].detach()) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_bridge_sees_the_same_model_as_training(architecture):
    """Same parameters, stock kernels, hooks on: patterns, logits and gradients agree with the training kernels."""
    spec = ARCHITECTURES[architecture]
    trained = FlatModel(build_model(spec, VOCABULARY, CONTEXT, 3))
    stock = FlatModel(build_model(spec, VOCABULARY, CONTEXT, 4, for_bridge=True))
    stock.load(trained.vector)
    sequences = repeated(context=CONTEXT, vocabulary=VOCABULARY)
    wrapped = bridge(stock.model)
    assert {id(p) for p in wrapped.parameters()} == {id(p) for p in stock.parameters}, "no copies"
    through = [(trained, trained.model), (stock, LogitsOf(wrapped))]
    gradients = [flat.gradient(example_losses(model, sequences.tokens).mean()) for flat, model in through]
    assert torch.allclose(*gradients, atol=1e-6)
    logits, cache = wrapped.run_with_cache(sequences.tokens)
    assert torch.allclose(logits, trained.model(sequences.tokens), atol=1e-5)
    for layer, pattern in enumerate(attention_patterns(trained.model, sequences)):
        assert torch.allclose(cache[f"blocks.{layer}.attn.hook_pattern"], pattern, atol=1e-5)
    moved = trained.vector + 0.1 * torch.randn(len(trained.vector), generator=torch.Generator().manual_seed(0))
    stock.load(moved)
    trained.load(moved)
    assert not torch.allclose(wrapped(sequences.tokens), logits), "the bridge reads the loaded parameters"
    assert torch.allclose(wrapped(sequences.tokens), trained.model(sequences.tokens), atol=1e-5)


class LogitsOf(torch.nn.Module):
    """The bridge as a module from tokens to logits."""

    def __init__(self, wrapped):
        super().__init__()
        self.__dict__["wrapped"] = wrapped

    def forward(self, tokens):
        return self.wrapped(tokens)


def test_previous_token_agrees_with_transformer_lens():
    """`detect_head` divides by the attention of all positions; ours by the positions that have a predecessor."""
    model = build_model(ARCHITECTURES["attention-only"], VOCABULARY, CONTEXT, 0, for_bridge=True)
    wrapped = bridge(model)
    tokens = repeated(count=1, context=CONTEXT, vocabulary=VOCABULARY)
    _, cache = wrapped.run_with_cache(tokens.tokens)
    patterns = [cache[f"blocks.{layer}.attn.hook_pattern"] for layer in range(2)]
    ours = DETECTORS["previous_token"].score(wrapped, patterns, Probe(tokens, tokens))
    shift = torch.diag(torch.ones(CONTEXT - 1), diagonal=-1)
    for layer in range(2):
        for head in range(2):
            mass = float(
                (patterns[layer][0, head] * shift).sum() / patterns[layer][0, head].sum()
            )  # TransformerLens' "mul"
            assert float(ours[layer, head]) == pytest.approx(mass * CONTEXT / (CONTEXT - 1), abs=1e-5)


def test_copy_advantage_is_zero_for_a_model_that_ignores_its_input_and_large_for_a_copier():
    sequences = repeated()

    class Uniform(torch.nn.Module):
        def forward(self, tokens):
            return torch.zeros(*tokens.shape, 50)

    class Copier(torch.nn.Module):
        """Puts the logit on what followed the last earlier occurrence of the current token."""

        def forward(self, tokens):
            logits = torch.zeros(*tokens.shape, 50)
            for row in range(len(tokens)):
                for t in range(tokens.shape[1]):
                    for earlier in range(t):
                        if tokens[row, earlier] == tokens[row, t]:
                            logits[row, t] = 0
                            logits[row, t, tokens[row, earlier + 1]] = 20
            return logits

    assert float(copy_advantage(Uniform(), sequences)) == pytest.approx(0, abs=1e-6)
    assert float(copy_advantage(Copier(), sequences)) == pytest.approx(float(torch.log(torch.tensor(50.0))), abs=1e-3)


@pytest.mark.parametrize("sign", [1, -1])
@torch.no_grad()
def test_copy_suppression_of_a_head_that_suppresses_and_of_one_that_copies(sign):
    """W_V W_O is minus or plus the identity, and tokens are unembedded as they are embedded."""
    wrapped = bridge(build_model(Model(layers=1, heads=2, d_model=64, d_head=64), 200, 8, 0, for_bridge=True))
    tokens = torch.nn.functional.normalize(torch.randn(200, 64, generator=torch.Generator().manual_seed(0)), dim=1)
    wrapped.embed.weight.copy_(tokens)
    wrapped.unembed.weight.copy_(tokens)
    wrapped.blocks[0].attn.v.weight.zero_()
    wrapped.blocks[0].attn.v.weight[:64] = torch.eye(64)
    wrapped.blocks[0].attn.o.weight[:, :64] = -sign * torch.eye(64)
    score = DETECTORS["copy_suppression"].score(wrapped, [], Probe(repeated(), repeated()))
    assert score.tolist() == [[sign, 0]], "the second head writes nothing"


@torch.no_grad()
def test_copy_suppression_is_about_zero_by_chance_and_counts_ranks_in_the_whole_row():
    wrapped = bridge(build_model(Model(layers=2, heads=2, d_model=32), 100, 8, 0, for_bridge=True))
    score = copy_suppression(wrapped, [], Probe(repeated(), repeated()))
    assert float(score.abs().max()) < 0.15
    for layer in range(2):
        for head in range(2):
            circuit = wrapped.W_E @ wrapped.W_V[layer, head] @ wrapped.W_O[layer, head] @ wrapped.W_U
            rank = circuit.argsort(dim=1).argsort(dim=1).diagonal()  # 0: most suppressed
            expected = (rank < 5).float().mean() - (rank > 94).float().mean()
            assert float(score[layer, head]) == pytest.approx(float(expected), abs=1e-6)
