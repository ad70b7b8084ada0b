"""Updates as pure functions against PyTorch's own optimizers, and schedules against their formulas."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mech_pipeline.spec.training import Optimizer, Training, caveats
from mech_pipeline.training.update.optimizer import State, clip_factor, update
from mech_pipeline.training.update.schedule import learning_rate

SAME = {"learning_rate": 0.01, "warmup_steps": 0, "weight_decay": 0.1, "clip_norm": None, "eps_root": 0.0, "eps": 1e-8}
PEERS = {
    "sgd": (
        Optimizer(kind="sgd", **SAME | {"weight_decay": 0.0}),
        lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9),
    ),
    "adam": (Optimizer(kind="adam", **SAME), lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.1)),
    "adamw": (Optimizer(**SAME), lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1)),
}


@pytest.mark.parametrize("name", PEERS)
def test_ten_updates_equal_those_of_torch_optim(name):
    spec, make = PEERS[name]
    generator = torch.Generator().manual_seed(0)
    parameter = torch.nn.Parameter(torch.randn(50, dtype=torch.float64, generator=generator))
    state, peer = State.initial(parameter.detach()), make([parameter])
    for _ in range(10):
        gradient = torch.randn(50, dtype=torch.float64, generator=generator)
        state = update(spec, state, gradient, clip_factor(spec, float(gradient.norm())))
        parameter.grad = gradient
        peer.step()
        assert torch.allclose(state.theta, parameter.detach(), rtol=1e-12, atol=1e-14)


def test_clipping_equals_that_of_torch():
    spec = Optimizer(clip_norm=0.5)
    parameter = torch.nn.Parameter(torch.zeros(9, dtype=torch.float64))
    parameter.grad = torch.arange(9, dtype=torch.float64)
    ours = parameter.grad * clip_factor(spec, float(parameter.grad.norm()))
    torch.nn.utils.clip_grad_norm_([parameter], 0.5)
    assert torch.allclose(ours, parameter.grad, rtol=1e-6)  # PyTorch adds 1e-6 to the norm


def test_cosine_equals_that_of_torch_after_warm_up():
    spec = Optimizer(learning_rate=2.0, warmup_steps=0, schedule="cosine", horizon=20, final_share=0.25)
    peer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(peer, T_max=20, eta_min=0.5)
    for step in range(20):
        assert learning_rate(spec, step) == pytest.approx(peer.param_groups[0]["lr"], rel=1e-9)
        peer.step()
        schedule.step()


@given(
    kind=st.sampled_from(["constant", "cosine", "wsd"]), warmup=st.integers(0, 30), final=st.floats(0, 1),
    step=st.integers(0, 300),
)  # fmt: skip
def test_the_rate_rises_then_never_rises_again_and_ends_at_its_final_share(kind, warmup, final, step):
    extra = {} if kind == "constant" else {"horizon": 100, "final_share": final}
    spec = Optimizer(learning_rate=1.0, warmup_steps=warmup, schedule=kind, **extra)
    rate, following = learning_rate(spec, step), learning_rate(spec, step + 1)
    assert 0 <= rate <= 1
    if step + 1 < warmup:
        assert following > rate
    else:
        assert following <= rate
    if step >= 100:
        assert rate == pytest.approx(1.0 if kind == "constant" else final)


def test_a_cosine_is_half_way_down_at_half_of_its_way():
    spec = Optimizer(learning_rate=1.0, warmup_steps=10, schedule="cosine", horizon=110)
    assert learning_rate(spec, 60) == pytest.approx(0.5)
    assert learning_rate(spec, 35) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"schedule": "constant", "horizon": 5}, "belong to schedule"),
        ({"schedule": "cosine", "decay_steps": 5}, "decay_steps belongs to schedule: wsd"),
        ({"schedule": "wsd", "horizon": 60, "decay_steps": 20}, "do not fit into the 60"),
        ({"schedule": "cosine", "horizon": 20}, "do not fit into the 20"),
        ({"eps_root": 0.0}, "divide by zero"),
    ],
)
def test_contradictory_schedules_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        Optimizer(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch": 4, "processes": 8}, "more ranks than examples"),
        ({"batch": 10, "micro_batches": 4}, "does not split into 4"),
        ({"batch": 12, "processes": 3}, "power of two"),
        ({"batch": 12, "processes": 4, "micro_batches": 6}, "cannot be shared by 4"),
        ({"stacked": True, "batch": 4, "processes": 2}, "stacked"),
    ],
)
def test_batches_that_cannot_be_shared_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        Training(**fields)


def test_processes_bring_their_micro_batches_but_are_no_part_of_the_identity():
    assert Training(batch=8, processes=2).micro_batches == 2
    assert Training(batch=8, processes=2).identity() == Training(batch=8, micro_batches=2).identity()


def test_what_hurts_attribution_is_said_and_the_defaults_are_silent():
    assert caveats(Optimizer(), Training()) == ()
    assert "eps" in caveats(Optimizer(eps_root=0, eps=1e-8), Training())[0]
    assert "muon" in caveats(Optimizer(kind="muon"), Training())[0]
    assert len(caveats(Optimizer(), Training(precision="bf16", compile=True))) == 2
