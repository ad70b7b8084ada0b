"""What tokens need, against one token and one part at a time, on a small model; clusters of made-up needs."""

import dataclasses

import numpy as np
import pytest
import torch

from mech_pipeline.discovery.needs import FIRST, Look, Needs, another_order, chosen, clusters_of_needs, parts_of
from mech_pipeline.discovery.scoring import agreement
from mech_pipeline.errors import MechError
from mech_pipeline.spec.model import Model
from mech_pipeline.training.model import build_model

STEPS = np.arange(0, 90, 10)
KINDS = np.repeat([0, 1, 2], 40)


@pytest.fixture(scope="module")
def model():
    spec = Model(layers=2, heads=2, d_model=16, d_mlp=8)
    return build_model(spec, vocabulary=11, context=9, seed=3).eval()


@pytest.fixture(scope="module")
def tokens():
    return torch.randint(0, 11, (70, 9), generator=torch.Generator().manual_seed(0))


def loss_of(model, context, token):
    with torch.no_grad():
        return float(-model(context[None])[0, -1].log_softmax(-1)[token])


def test_losses_and_those_behind_another_order_are_those_of_one_token_at_a_time(model, tokens):
    look, rows, positions = Look(model, tokens), np.array([0, 3, 69]), np.array([8, 3, 5])
    losses = look.losses()
    assert np.isnan(losses[:, 0]).all()
    orders = another_order(positions, 9, np.random.default_rng(5))
    behind = look.disordered(rows, positions, np.random.default_rng(5))
    for row, at, order, after in zip(rows, positions, orders, behind, strict=True):
        assert losses[row, at] == pytest.approx(loss_of(model, tokens[row, :at], tokens[row, at]), abs=1e-5)
        context = tokens[row][torch.from_numpy(order)][:at]
        assert context[-1] == tokens[row, at - 1], "the token before it stays"
        assert sorted(context.tolist()) == sorted(tokens[row, :at].tolist())
        assert after == pytest.approx(loss_of(model, context, tokens[row, at]), abs=1e-5)
    assert len(look.disordered(rows[:0], positions[:0], np.random.default_rng(5))) == 0


def test_so_many_contexts_that_they_are_put_in_order_block_by_block_are_in_the_same_orders(model, tokens, monkeypatch):
    places = np.argwhere(np.arange(tokens.shape[1]) >= np.full((len(tokens), 1), 3))
    rows, positions = np.tile(places[:, 0], 60), np.tile(places[:, 1], 60)
    look = Look(model, tokens)
    whole = look.disordered(rows, positions, np.random.default_rng(5))
    monkeypatch.setattr("mech_pipeline.discovery.needs.ORDERED_AT_ONCE", 1)
    np.testing.assert_allclose(look.disordered(rows, positions, np.random.default_rng(5)), whole, atol=1e-5)


def test_a_part_is_held_at_its_mean_over_all_sequences_however_many_are_computed_together(model, tokens):
    parts = parts_of(model, heads=2)
    assert [part.name for part in parts] == ["L0H0", "L0H1", "L1H0", "L1H1", "L0.MLP", "L1.MLP"]
    together = list(Look(model, tokens).without(parts))
    for part, found in zip(parts, together, strict=True):
        seen = []
        handle = part.module.register_forward_pre_hook(lambda _, arguments, seen=seen: seen.append(arguments[0]))
        with torch.no_grad():
            model(tokens[:, :-1])
        handle.remove()

        def hold(_module, arguments, part=part, seen=seen):
            entering = arguments[0].clone()
            entering[..., part.columns] = seen[0][..., part.columns].mean((0, 1))
            return (entering,)

        handle = part.module.register_forward_pre_hook(hold)
        with torch.no_grad():
            logits = model(tokens[:, :-1])
        handle.remove()
        expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
        np.testing.assert_allclose(found[:, 1:], expected.view(70, 8).numpy(), atol=1e-5)
    assert not np.allclose(together[0][:, 1:], together[5][:, 1:], atol=1e-4)


def test_tokens_are_chosen_by_what_their_order_is_worth_and_never_more_than_asked():
    gains = np.full((4, 6), np.nan)
    gains[:, FIRST:] = [[0.5, 1.0, 3.0], [0.9, 0.0, -2.0], [2.0, 2.0, 2.0], [0.0, 0.0, 1.5]]
    rows, positions = chosen(gains, 100, np.random.default_rng(0))
    assert list(zip(rows.tolist(), positions.tolist(), strict=True)) == [(0, 4), (0, 5), (2, 3), (2, 4), (2, 5), (3, 5)]
    none = chosen(np.minimum(gains, 0.95), 100, np.random.default_rng(0))
    assert len(none[0]) > 0
    assert gains[none].min() >= 0.95, "where none needs it, those that need it most"
    few = chosen(gains, 2, np.random.default_rng(0))
    assert len(few[0]) == 2
    assert all(gains[row, position] >= 1 for row, position in zip(*few, strict=True))


def made_up(seed=0):
    """Three kinds: two that need a head each, from steps 30 and 60 on, and one that needs a head from 60 on and another MLP."""
    generator = np.random.default_rng(seed)
    losses = 5 + 0.1 * generator.normal(size=(120, 9))
    without = 0.02 * generator.normal(size=(120, 3, 4))
    losses[:40, 3:] -= 4
    losses[40:, 6:] -= 4
    without[:40, :, 0] += 2
    without[40:, 2, 1] += 2
    without[80:, 2, 3] += 2
    gained = np.where(losses < 3, 3.0, 0.0) + 0.1 * generator.normal(size=losses.shape)
    place = np.arange(120)
    return Needs(
        place, place % 7 + 3, STEPS, losses, STEPS[[3, 5, 8]], ("L0H0", "L0H1", "L1H0", "L0.MLP"), without, gained
    )


def test_tokens_that_need_the_same_parts_at_the_same_time_are_a_cluster():
    needs = made_up()
    labels = clusters_of_needs(needs, 10)
    assert agreement(KINDS, labels).v_measure > 0.95
    assert np.all(clusters_of_needs(needs.some(np.arange(30)), 10) == -1), "too few tokens: no cluster, and no error"
    owed, names = needs.carried(np.flatnonzero(KINDS == 2))
    assert names[int(np.argmax(owed))] in ("L0H1", "L0.MLP")
    assert (owed >= 0).all()
    assert needs.looked(np.flatnonzero(KINDS == 2))[1] == ("L0H0", "L0H1", "L1H0")
    assert np.abs(needs.gained_by_looking()[:, 0]).max() == 0


def test_losses_that_are_no_numbers_and_too_few_checkpoints_are_refused():
    needs = made_up()
    losses = needs.losses.copy()
    losses[5, 2] = np.nan
    with pytest.raises(MechError, match="no numbers"):
        clusters_of_needs(dataclasses.replace(needs, losses=losses), 10)
    short = dataclasses.replace(needs, steps=STEPS[:4], losses=needs.losses[:, :4], gained=needs.gained[:, :4])
    with pytest.raises(MechError, match="plan at least 5 checkpoints"):
        clusters_of_needs(short, 10)
