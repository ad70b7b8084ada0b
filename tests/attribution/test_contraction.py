"""Per-example contraction against one backward per example, for every kind of layer and every way of computing it."""

import pytest
import torch

from mech_pipeline.attribution.per_example import layer_sums, outer_products
from mech_pipeline.attribution.per_example.capture import Capture, example_factors
from mech_pipeline.attribution.per_example.contraction import Contraction
from mech_pipeline.training.update.optimizer import State
from tests.support.models import ARCHITECTURES, components
from tests.support.on_every_device import contraction_equals_one_backward_per_example
from tests.support.per_example import PRECISIONS, assert_close, one_backward_per_example, random_directions


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("count", [1, 3])
def test_contraction_equals_one_backward_per_example(make_trainer, architecture, dtype, tolerance, count):
    contraction_equals_one_backward_per_example(make_trainer, architecture, dtype, tolerance, count)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("outer", [False, True])
@pytest.mark.parametrize(("held", "piece"), [(1, 1), (600, 24), (2**26, 4096)])
def test_both_ways_and_all_block_sizes_agree(make_trainer, monkeypatch, architecture, outer, held, piece):
    monkeypatch.setattr(outer_products, "outer_is_cheaper", lambda tokens, directions: outer)
    monkeypatch.setattr(layer_sums, "outer_is_cheaper", lambda tokens, directions: outer)
    for name in ("GRADIENT_BYTES", "CACHE_BYTES"):
        monkeypatch.setattr(outer_products, name, held)
    monkeypatch.setattr(outer_products, "PIECE", piece)  # 24: 3 rows of 8, which leaves one of 13 tokens over
    trainer = make_trainer(ARCHITECTURES[architecture])
    parts, directions, tokens = components(trainer, neurons=True), random_directions(trainer, 3), trainer.pool[:5]
    fast = Contraction(trainer.flat, parts)(example_factors(trainer.flat.model, tokens), directions)
    assert_close(fast, one_backward_per_example(trainer, parts, tokens, directions), 1e-13)


def test_long_sums_keep_their_digits():
    """A million products added in float32 one after another would be off by 1e-5; pieces are added in float64."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 64, 2048, generator=generator), torch.randn(2, 64, 512, generator=generator)
    v = torch.randn(3, 2048, 512, generator=generator)
    assert outer_products.outer_is_cheaper(tokens=64, directions=3)
    for width in (2048, 128):
        found = outer_products.example_sums(x, y, v, width)
        truth = torch.einsum("etl,etr,klr->kel", x.double(), y.double(), v.double())
        assert_close(found, truth.unflatten(2, (-1, width)).sum(-1), 2e-6)


def test_outer_products_are_chosen_from_a_few_directions_on():
    assert not outer_products.outer_is_cheaper(tokens=128, directions=1)
    assert outer_products.outer_is_cheaper(tokens=128, directions=2)
    assert not outer_products.outer_is_cheaper(tokens=4, directions=3)  # G_i would be larger than what it sums


def test_capturing_factors_does_not_change_a_bit_of_the_gradient(make_trainer):
    trainer = make_trainer(dtype=torch.float32)
    state = State.initial(trainer.flat.vector)
    plain = trainer.step(state)
    with Capture(trainer.flat.model):
        captured = trainer.step(state)
    assert torch.equal(plain.gradient, captured.gradient)


def test_factors_of_their_own_backward_leave_the_model_as_it_was(make_trainer):
    trainer = make_trainer()
    example_factors(trainer.flat.model, trainer.pool[:2])
    assert all(parameter.requires_grad and parameter.grad is None for parameter in trainer.flat.parameters)
    assert all(not module._forward_hooks for module in trainer.flat.model.modules())


@pytest.mark.parametrize("architecture", ["mlp and layer norm", "gpt2", "gpt_neox", "llama with shared keys"])
@pytest.mark.parametrize("pattern", ["L0H1.*", "L0H0.O", "L0[HG]*.K", "L0N3.*", "L0N[37].out", "embedding", "*"])
@pytest.mark.parametrize("count", [1, 4])
def test_confined_to_components_it_is_the_same_numbers(make_trainer, architecture, pattern, count):
    trainer = make_trainer(ARCHITECTURES[architecture])
    parts, directions, tokens = components(trainer, neurons=True), random_directions(trainer, count), trainer.pool[:3]
    confined = Contraction(trainer.flat, parts, only=[pattern])
    factors = example_factors(trainer.flat.model, tokens)
    everything = Contraction(trainer.flat, parts)
    chosen = parts.matching([pattern])
    assert confined.names == tuple(parts.names[i] for i in chosen)
    found = confined(example_factors(trainer.flat.model, tokens, confined.modules), directions)
    assert_close(found, everything(factors, directions)[..., chosen], 1e-12)
    by_token = everything.per_token(factors, directions, components=True)[..., chosen]
    assert_close(confined.per_token(factors, directions, components=True), by_token, 1e-12)
    assert_close(confined.per_token(factors, directions), by_token.sum(-1), 1e-12)


def test_one_head_needs_the_modules_that_hold_it_and_no_others(make_trainer):
    trainer = make_trainer()
    confined = Contraction(trainer.flat, components(trainer), only=["L1H0.Q", "L1H1.O"])
    assert confined.modules == {"layers.1.attn.q", "layers.1.attn.o"}
    assert set(example_factors(trainer.flat.model, trainer.pool[:2], confined.modules)) == confined.modules


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
@pytest.mark.parametrize("count", [1, 8])
def test_a_score_does_not_depend_on_who_shares_the_batch(make_trainer, architecture, dtype, tolerance, count):
    trainer = make_trainer(ARCHITECTURES[architecture], dtype=dtype)
    contraction, directions = Contraction(trainer.flat, components(trainer)), random_directions(trainer, count)
    tokens = trainer.pool[:7]
    together = contraction(example_factors(trainer.flat.model, tokens), directions)
    alone = [contraction(example_factors(trainer.flat.model, example[None]), directions) for example in tokens]
    reordered = contraction(example_factors(trainer.flat.model, tokens.flip(0)), directions).flip(1)
    assert_close(together, torch.cat(alone, dim=1), tolerance)
    assert_close(together, reordered, tolerance)


def test_a_layer_of_unknown_kind_is_refused():
    with pytest.raises(TypeError, match="Conv1d"):
        Capture(torch.nn.Sequential(torch.nn.Conv1d(2, 2, 1)))
