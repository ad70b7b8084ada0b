"""One sweep, many targets: tokens, horizons, resuming, kept graphs. Truths are sweeps of one target, and retrainings."""

import dataclasses

import pytest
import torch

from mech_pipeline.attribution.influence import replay
from mech_pipeline.attribution.influence.gradient_graph import GradientGraph, graph_bytes
from mech_pipeline.attribution.influence.influence import Target
from mech_pipeline.attribution.influence.replay import Replayer
from mech_pipeline.attribution.ledger.ledger import batch_factors
from mech_pipeline.attribution.per_example.contraction import Contraction
from mech_pipeline.training.update.optimizer import State
from tests.support.influence import STEPS, sweep, sweep_all, target_of, train, windows_of
from tests.support.models import ARCHITECTURES, OPTIMIZERS, components
from tests.support.on_every_device import (
    a_resumed_sweep_gives_the_same_numbers,
    influence_of_one_tokens_loss_equals_finite_differences_of_retraining,
    tokens_and_components_sum_to_the_example,
)

COPY, PREVIOUS = "induction_copy_advantage", "previous_token_attention"


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_sweep_of_several_targets_equals_one_sweep_each(make_trainer, tiny_probe, optimizer):
    trainer = make_trainer(optimizer=OPTIMIZERS[optimizer])
    updates = train(trainer)
    last = [target_of(trainer, tiny_probe, name, updates[-1]) for name in (COPY, PREVIOUS)]
    earlier = target_of(trainer, tiny_probe, COPY, updates[4])
    together = sweep_all(trainer, [earlier, *last], windows_of(updates, window=5))
    assert max(step for step, _ in together[0]) == 4
    expected = [
        sweep(trainer, updates[:5], tiny_probe, COPY),
        *(sweep(trainer, updates, tiny_probe, t.name) for t in last),
    ]
    for found, alone in zip(together, expected, strict=True):
        assert found.keys() == alone.keys()
        scale = max(abs(v) for v in alone.values())
        assert max(abs(found[cell] - alone[cell]) for cell in alone) < 1e-12 * scale


def test_a_horizon_gives_the_last_updates_of_the_whole_sweep_and_nothing_else(make_trainer, tiny_probe):
    trainer = make_trainer()
    updates = train(trainer)
    whole = sweep(trainer, updates, tiny_probe, COPY)
    short = sweep_all(trainer, [target_of(trainer, tiny_probe, COPY, updates[-1], horizon=3)], windows_of(updates))[0]
    assert short == {cell: value for cell, value in whole.items() if cell[0] >= STEPS - 3}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_influence_of_one_tokens_loss_equals_finite_differences_of_retraining(make_trainer, tiny_probe, architecture):
    influence_of_one_tokens_loss_equals_finite_differences_of_retraining(make_trainer, tiny_probe, architecture)


def test_tokens_and_components_sum_to_the_example(make_trainer, tiny_probe):
    tokens_and_components_sum_to_the_example(make_trainer, tiny_probe)


def test_a_resumed_sweep_gives_the_same_numbers(make_trainer, tiny_probe):
    a_resumed_sweep_gives_the_same_numbers(make_trainer, tiny_probe)


def replayer(trainer, updates):
    """A replayer whose checkpoints are the states around updates."""
    states = {u.before.step: u.before for u in updates} | {updates[-1].after.step: updates[-1].after}

    def is_same(state):
        return torch.equal(state.theta, states[state.step].theta) and torch.equal(state.v, states[state.step].v)

    def verify(state):
        assert is_same(state)

    return Replayer(trainer, states.__getitem__, verify, is_same)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_replays_with_kept_graphs_have_the_bits_of_training_and_give_the_same_scores(
    make_trainer, tiny_probe, architecture, dtype
):
    trainer = make_trainer(ARCHITECTURES[architecture], dtype=dtype)
    updates = train(trainer)
    kept = replayer(trainer, updates)
    replayed = kept.window(0, 4)
    if "llama" not in architecture:  # PyTorch differentiates SiLU by another formula where the result is differentiated
        assert all(r.graph is not None for r in replayed), "plain training keeps its graphs"
    assert torch.equal(replayed[-1].update.after.theta, updates[3].after.theta)
    target = target_of(trainer, tiny_probe, COPY, updates[-1])
    with_graphs = sweep_all(trainer, [target], [lambda: kept.window(4, 9), lambda: kept.window(0, 4)])
    assert with_graphs == sweep_all(trainer, [target], windows_of(updates))


def test_memory_bounds_how_many_graphs_are_kept(make_trainer, tiny_probe, monkeypatch):
    trainer = make_trainer()
    updates = train(trainer)
    one = graph_bytes(trainer, updates[0].before.theta, 0)
    monkeypatch.setattr(replay, "GRAPH_BYTES", 2 * one + one // 2)
    replayed = replayer(trainer, updates).window(0, STEPS)
    assert [r.graph is not None for r in replayed] == [False] * (STEPS - 2) + [True] * 2


def test_training_that_is_computed_another_way_keeps_no_graphs(make_trainer):
    trainer = make_trainer()
    updates = train(trainer)
    fused = dataclasses.replace(trainer, training=trainer.training.model_copy(update={"attention": "fused"}))
    fused_updates = list(fused.updates(updates[0].before, 3))
    assert all(r.graph is None for r in replayer(fused, fused_updates).window(0, 3))


def test_weights_of_the_data_count_as_weights_of_each_token(make_trainer, tiny_probe):
    """With weights, influence is still the derivative by the total weight: ⟨∇ℓ_i, u⟩ / B."""
    trainer = make_trainer()
    weights = torch.rand(len(trainer.pool), dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    weighted = dataclasses.replace(trainer, weights=weights)
    made = weighted.step(State.initial(trainer.flat.vector))
    graph = GradientGraph(weighted, made.before.theta, made.examples, 0)
    assert torch.allclose(graph.gradient, made.gradient, rtol=1e-12)
    u = torch.randn_like(made.gradient)
    tokens, _ = graph.pull(u[None])
    parts = components(trainer)
    split = Contraction(trainer.flat, parts)(batch_factors(weighted, made, weighted=False), u[None])[0].sum(1)
    assert torch.allclose(tokens[0].sum(1), split, rtol=1e-9)


def test_targets_say_what_they_cover():
    target = Target("m", 10, torch.zeros(1), horizon=4)
    assert [s for s in range(12) if target.covers(s)] == [6, 7, 8, 9]
