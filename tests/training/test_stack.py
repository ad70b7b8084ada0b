"""Runs trained in one stack: the bits do not depend on the company, and rounding is all that stacking changes."""

import dataclasses
import itertools

import pytest
import torch

from mech_pipeline.errors import MechError
from mech_pipeline.pipeline.analysis import analysis
from mech_pipeline.pipeline.ledger import ledger
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.pipeline.training import stack as stack_stage
from mech_pipeline.pipeline.training.training import train
from mech_pipeline.spec.run_checks import VECTOR_WIDTH
from mech_pipeline.spec.training import Training
from mech_pipeline.store.store import Store
from mech_pipeline.training.many import stack as training_stack
from mech_pipeline.training.many.stack import StackedGradient
from mech_pipeline.training.update.optimizer import State
from tests.support.models import ARCHITECTURES
from tests.support.on_every_device import a_stack_gives_each_run_the_gradient_it_has_alone
from tests.support.tiny import checkpoint_hashes, prepare, spec_of

STACKED = {"training": {"steps": 24, "batch": 8, "stacked": True}}
SEEDS = {"seeds": [0, 1, 2], "arms": {"baseline": {}}, "influence": {}, "gradients": []}


@pytest.fixture
def store(folder, local_store):
    """An empty store beside the text."""
    return local_store


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_stack_gives_each_run_the_gradient_it_has_alone(make_trainer, architecture):
    a_stack_gives_each_run_the_gradient_it_has_alone(make_trainer, architecture)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_bits_do_not_depend_on_who_else_is_in_the_stack(make_trainer, architecture):
    spec = ARCHITECTURES[architecture]
    spec = spec.model_copy(update={"d_mlp": None if spec.d_mlp is None else VECTOR_WIDTH})
    trainers = [make_trainer(spec, dtype=torch.float32, seed=seed) for seed in range(4)]
    thetas = torch.stack([trainer.flat.vector for trainer in trainers])
    tokens = torch.stack([trainer.tokens(trainer.batch(0)) for trainer in trainers])
    stack, weights = StackedGradient(trainers[0].flat), torch.ones(4, 4)
    whole, _ = stack(thetas, tokens, weights)
    for chosen in ([2], [1, 3], [3, 0, 2]):
        part, _ = stack(thetas[chosen], tokens[chosen], weights[chosen])
        assert torch.equal(part, whole[chosen])


def test_a_stacked_run_equals_the_run_alone_to_rounding(make_trainer):
    trainer = make_trainer(dtype=torch.float64)
    stacked = dataclasses.replace(trainer, training=Training(**trainer.training.model_dump() | {"stacked": True}))
    state = State.initial(trainer.flat.vector)
    one, other = (list(each.updates(state, 12))[-1].after.theta for each in (trainer, stacked))
    assert torch.allclose(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_seeds_train_together_and_replay_alone_bit_for_bit(store):
    specs = [spec_of(index, **STACKED, **SEEDS) for index in range(3)]
    for spec in specs:
        prepare(store, spec)
    train(store, specs[0].model_copy(update={"training": specs[0].training.model_copy(update={"steps": 9})}))
    assert [spec.run for spec in stack_stage.stack_of(store, specs[1])] == [spec.run for spec in specs]
    seen: dict[str, list[int]] = {}
    made = stack_stage.train_stack(
        store, specs, lambda spec: lambda saved: seen.setdefault(spec.run, []).append(saved.step), lambda line: None
    )
    assert set(made) == set(seen) == {spec.run for spec in specs}
    assert min(seen[specs[0].run]) > 6, "it continued from its own last checkpoint"
    alone = Store(store.root + "-alone")
    for spec in specs:
        prepare(alone, spec)
        train(alone, spec)
        expected, found = checkpoint_hashes(alone, spec.run), checkpoint_hashes(store, spec.run)
        assert {step: found[step] for step in expected} == expected
    run = OpenRun(store, specs[0])
    analysis.analyse(run, ["mechanism_values"], run.planned)
    assert ledger.compute_ledger(run, run.planned) > 0, "its account balances, replayed without the others"
    assert stack_stage.train_stack(store, specs, lambda spec: lambda saved: None, lambda line: None) == {}


@pytest.fixture
def two_threads():
    """What PyTorch starts with on a machine of two CPUs."""
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def test_the_machines_thread_count_does_not_decide_the_bits_of_a_stack(store, two_threads):
    wide = {
        "model": {"family": "gpt_neox", "layers": 2, "heads": 4, "d_model": 32, "d_mlp": 64},
        "data": {"context": 32, "examples": 64, "tile_tokens": [4, 8]},
        "training": {"steps": 6, "batch": 16, "stacked": True},
    }
    specs = [spec_of(index, **SEEDS, **wide) for index in range(2)]
    alone = Store(store.root + "-alone")
    for each, spec in itertools.product((store, alone), specs):
        prepare(each, spec)
    stack_stage.train_stack(store, specs, lambda spec: lambda saved: None, lambda line: None)
    for spec in specs:
        train(alone, spec)
        assert checkpoint_hashes(alone, spec.run) == checkpoint_hashes(store, spec.run)


def test_a_run_that_fails_does_not_keep_the_others(store, monkeypatch):
    specs = [spec_of(index, **STACKED, **SEEDS) for index in range(3)]
    for spec in specs:
        prepare(store, spec)

    def on_checkpoint(spec):
        def refuse(saved):
            if spec.seed == 1:
                raise MechError("no", "never")

        return refuse

    with pytest.raises(MechError, match="no"):
        stack_stage.train_stack(store, specs, on_checkpoint, lambda line: None)
    for spec in (specs[0], specs[2]):
        assert max(checkpoint_hashes(store, spec.run)) == 24


def test_widths_at_which_bits_would_depend_on_the_stack_are_refused():
    with pytest.raises(MechError, match="multiples of 32, got 24"):
        spec_of(**STACKED, **SEEDS, model={"layers": 1, "heads": 2, "d_model": 16, "d_mlp": 24})


@pytest.mark.parametrize("other", [{"processes": 2}, {"compile": True}, {"attention": "fused"}, {"precision": "bf16"}])
def test_what_cannot_be_stacked_is_refused(other):
    with pytest.raises(ValueError, match="stacked runs train in one process in fp32"):
        Training(steps=24, batch=8, stacked=True, **other)


def test_runs_that_are_not_stacked_have_no_siblings(store):
    spec = spec_of(**SEEDS)
    assert stack_stage.stack_of(store, spec) == [spec]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_embeddings_summed_run_by_run_have_the_same_gradient(make_trainer, monkeypatch, architecture):
    """As a GPU needs it: there a sum over all runs would depend on a run's place."""
    trainers = [make_trainer(ARCHITECTURES[architecture], seed=seed) for seed in range(3)]
    thetas = torch.stack([trainer.flat.vector.clone() for trainer in trainers])
    tokens = torch.stack([trainer.tokens(trainer.batch(0)) for trainer in trainers])
    weights = torch.ones(tokens.shape[:2], dtype=thetas.dtype)
    expected, _ = StackedGradient(trainers[0].flat)(thetas, tokens, weights)
    used, real = [], training_stack._LookupOfRuns.backward
    monkeypatch.setattr(training_stack, "nullcontext", training_stack._EmbeddingByRun)
    monkeypatch.setattr(
        training_stack._LookupOfRuns,
        "backward",
        staticmethod(lambda ctx, gradient: used.append(1) or real(ctx, gradient)),
    )
    found, _ = StackedGradient(trainers[0].flat)(thetas, tokens, weights)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
    assert used, "no embedding was found"
