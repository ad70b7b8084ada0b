"""One update: micro-batches, precision, Muon, and what happens when it goes wrong."""

import dataclasses
import shutil

import pytest
import torch
from torch import multiprocessing

from mech_pipeline.attribution.ledger.ledger import replay_with_factors, window_account
from mech_pipeline.attribution.per_example.contraction import Contraction
from mech_pipeline.errors import MechError
from mech_pipeline.spec.training import Optimizer, Training
from mech_pipeline.training import loop
from mech_pipeline.training.many.ranks import tree_sum
from mech_pipeline.training.update.muon import hidden_matrices
from mech_pipeline.training.update.optimizer import State
from tests.support.influence import sweep, train
from tests.support.models import ARCHITECTURES, OPTIMIZERS, components, mechanism_of, trainer_of

MECHANISM = "induction_copy_advantage"


def split(trainer, micro_batches):
    """The same training with its batches in parts."""
    training = Training(**trainer.training.model_dump() | {"micro_batches": micro_batches})
    return dataclasses.replace(trainer, training=training)


def start(trainer):
    return State.initial(trainer.flat.vector)


def test_tree_sum_adds_neighbours_first():
    big, small = torch.tensor(1e8), torch.tensor(-1e8)
    parts = [big, small, torch.tensor(1.0), torch.tensor(2.0)]
    assert tree_sum(parts) == 3.0
    assert tree_sum([big, torch.tensor(1.0), small, torch.tensor(2.0)]) != 3.0  # (1e8 + 1) loses the 1 in float32


@pytest.mark.parametrize("micro_batches", [2, 4])
def test_micro_batches_make_the_same_update_as_the_whole_batch(make_trainer, micro_batches):
    trainer = make_trainer()
    state = start(trainer)
    whole, parts = trainer.step(state), split(trainer, micro_batches).step(state)
    assert torch.allclose(whole.gradient, parts.gradient, rtol=1e-12, atol=1e-15)
    assert parts.loss == pytest.approx(whole.loss, rel=1e-14)


def test_the_ledger_balances_over_micro_batches(make_trainer, tiny_probe):
    optimizer = OPTIMIZERS["adamw, clip and decay"].model_copy(update={"learning_rate": 1e-3})
    trainer = split(make_trainer(optimizer=optimizer), 2)
    at, scalar = mechanism_of(trainer, tiny_probe, MECHANISM)
    updates, factors = replay_with_factors(trainer, start(trainer), 4)
    parts = components(trainer)
    account = window_account(trainer.optimizer, parts, Contraction(trainer.flat, parts), at, updates, factors)
    change = scalar(updates[-1].after.theta) - scalar(updates[0].before.theta)
    assert account.explained() == pytest.approx(change, abs=1e-6 * account.gross)
    assert account.example_error < 1e-6


def test_influence_over_micro_batches_equals_that_of_the_whole_batch(make_trainer, tiny_probe):
    trainer = make_trainer()
    whole = sweep(trainer, train(trainer), tiny_probe, MECHANISM)
    parts = split(trainer, 2)
    parts.theta_0 = trainer.theta_0
    assert sweep(parts, train(parts), tiny_probe, MECHANISM) == pytest.approx(whole, rel=1e-9, abs=1e-15)


def test_muon_moves_hidden_matrices_as_torch_does_and_the_rest_as_adamw(make_trainer):
    spec = Optimizer(kind="muon", learning_rate=0.01, warmup_steps=0, weight_decay=0.1, clip_norm=None, momentum=0.95)
    trainer = make_trainer(ARCHITECTURES["mlp and layer norm"], spec, dtype=torch.float32)
    rest = dataclasses.replace(trainer, optimizer=spec.model_copy(update={"kind": "adamw"}))
    hidden = hidden_matrices(trainer.flat.slots)
    assert {slot.name.split(".")[0] for slot in hidden} == {"layers"}
    state = start(trainer)
    for _ in range(2):
        made, plain = trainer.step(state), rest.step(state)
        inside = torch.zeros(len(state.theta), dtype=torch.bool)
        for slot in hidden:
            inside[slot.begin : slot.end] = True
            parameter = torch.nn.Parameter(state.theta[slot.begin : slot.end].view(slot.shape).clone())
            peer = torch.optim.Muon([parameter], lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
            parameter.grad = made.gradient[slot.begin : slot.end].view(slot.shape)
            peer.state[parameter]["momentum_buffer"] = state.m[slot.begin : slot.end].view(slot.shape).clone()
            peer.step()
            assert torch.equal(made.after.theta[slot.begin : slot.end], parameter.detach().flatten())
        assert torch.equal(made.after.theta[~inside], plain.after.theta[~inside])
        state = made.after


def test_bf16_gradients_are_close_to_fp32_and_weights_stay_fp32(make_trainer):
    trainer = make_trainer(dtype=torch.float32)
    state = start(trainer)
    training = Training(**trainer.training.model_dump() | {"precision": "bf16"})
    exact, rough = trainer.step(state), dataclasses.replace(trainer, training=training).step(state)
    assert rough.after.theta.dtype == torch.float32
    assert not torch.equal(exact.gradient, rough.gradient)
    difference = (exact.gradient - rough.gradient).norm() / exact.gradient.norm()
    assert difference < 0.05  # bf16 keeps 8 bits: about 0.4 % per product


def test_divergence_names_the_update(make_trainer):
    spec = Optimizer(kind="sgd", learning_rate=1e12, warmup_steps=0, clip_norm=None)
    trainer = make_trainer(optimizer=spec)
    with pytest.raises(MechError, match=r"run diverged at update [1-9]"):
        list(trainer.updates(start(trainer), 20))


def test_running_out_of_memory_names_the_batch_that_would_fit(make_trainer, monkeypatch):
    trainer = make_trainer(batch=16)
    real = loop.example_losses

    def only_five(model, tokens):
        if len(tokens) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return real(model, tokens)

    monkeypatch.setattr(loop, "example_losses", only_five)
    with pytest.raises(
        MechError, match=r"out of memory with 16 examples per backward .* 4 would fit.*micro_batches to at least 4"
    ):
        trainer.step(start(trainer))
    assert split(trainer, 4).step(start(trainer)).loss > 0


def test_other_runtime_errors_are_not_called_out_of_memory(make_trainer, monkeypatch):
    def broken(model, tokens):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(loop, "example_losses", broken)
    trainer = make_trainer()
    with pytest.raises(RuntimeError, match="shapes do not match"):
        trainer.step(start(trainer))


def compile_and_compare(_rank, architecture):
    """In a process of its own: the tests' checks of annotations, compiled into every function, confuse torch.compile.

    It compiles by itself: helpers would each import PyTorch for a handful of kernels.
    """
    torch._inductor.config.compile_threads = 1
    trainer = trainer_of(ARCHITECTURES[architecture], dtype=torch.float32)
    compiled = dataclasses.replace(trainer, training=trainer.training.model_copy(update={"compile": True}))
    initial, trainers = start(trainer), (trainer, compiled, dataclasses.replace(compiled))
    plain, once, again = (list(each.updates(initial, 3))[-1].after.theta for each in trainers)
    assert torch.equal(once, again)
    assert torch.allclose(once, plain, atol=2e-6), "rounding, grown over three updates"


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("architecture", ["attention-only", "gpt_neox"])
def test_a_compiled_model_trains_alike_and_repeats_itself(architecture):
    multiprocessing.spawn(compile_and_compare, (architecture,), nprocs=1)
