"""Attribution of a model and a loop that this project knows nothing of: plain PyTorch and `transformers`."""

import re

import pytest
import torch
from torch import nn

from mech_pipeline.attribution.record import TrainingRecord
from mech_pipeline.errors import MechError
from tests.support.own_loops import (
    CONTEXT,
    MODELS,
    OPTIMIZERS,
    ORDER,
    TOKENS,
    VOCABULARY,
    Bigrams,
    gpt2,
    readout,
    train,
)
from tests.support.places import ROOT


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("kind", MODELS)
def test_influence_equals_retraining_with_the_users_own_loop(kind, optimizer):
    torch.manual_seed(3)
    start = MODELS[kind]().double()

    def copied():
        model = MODELS[kind]().double()
        model.load_state_dict(start.state_dict())
        return model

    rates, clip = [1e-2 * (1 + s / 12) * (20 if optimizer == "sgd" else 1) for s in range(12)], 0.8
    record = train(copied(), OPTIMIZERS[optimizer], rates=rates, clip=clip)
    found = record.influence(readout, 12)
    totals = found.scores.group_by("example").sum().sort("value")
    example, predicted = int(totals["example"][-1]), float(totals["value"][-1])

    def retrained(delta):
        weights = torch.ones(24, dtype=torch.float64)
        weights[example] += delta
        model = copied()
        train(model, OPTIMIZERS[optimizer], rates=rates, clip=clip, weights=weights, record=False)
        return float(readout(model).detach())

    h = 1e-2 if kind == "llama" else 1e-4  # its RMS norm computes in float32, also for float64
    measured = (8 * (retrained(h) - retrained(-h)) - (retrained(2 * h) - retrained(-2 * h))) / (12 * h)
    # clip_grad_norm_ divides by the norm + 1e-6, which is not the same function to the last digit
    assert predicted == pytest.approx(measured, rel=1e-4)
    tokens = record.influence(readout, 12, tokens=True).scores
    assert tokens.height == 12 * 4 * (CONTEXT - 1)
    assert float(tokens["value"].sum()) == pytest.approx(float(found.scores["value"].sum()), rel=1e-9)


@pytest.mark.parametrize("kind", MODELS)
def test_the_ledger_of_a_record_sums_to_what_the_readout_did(kind):
    torch.manual_seed(1)
    model = MODELS[kind]().double()
    before = float(readout(model).detach())
    record = train(model, lambda p: torch.optim.AdamW(p, lr=1e-3, eps=1e-4))
    change = float(readout(model).detach()) - before
    ledger = record.ledger(readout, 12)
    assert float(ledger["value"].sum()) == pytest.approx(change, rel=1e-4)
    later, momentum = float(ledger["value_later"].sum()), float(ledger.filter(term="momentum")["value"].sum())
    assert later == pytest.approx(momentum, rel=1e-6, abs=1e-12)
    names = set(ledger["component"])
    assert {"bigrams": {"embed", "out"}}.get(kind, names & {"L0H0.Q", "L0H1.O", "embedding"}) <= names
    assert kind == "bigrams" or "L0H1.O" in names


def test_a_record_of_another_training_is_refused():
    model = gpt2()
    record = train(model, OPTIMIZERS["adamw"], order=ORDER.flip(0))
    with pytest.raises(
        MechError, match="does not reach the state kept at step 12: off by .* → check the order of examples"
    ):
        record.influence(readout, 12)


class Fused(nn.Module):
    """One layer of attention through PyTorch's fused kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.qkv, self.out = nn.Embedding(VOCABULARY, 8), nn.Linear(8, 24), nn.Linear(8, VOCABULARY)

    def forward(self, tokens):
        query, key, value = self.qkv(self.embed(tokens))[:, None].chunk(3, dim=-1)
        return self.out(nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)[:, 0])


class OnceOnly(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        return gradient


class NotTwice(Bigrams):
    """A kernel of somebody's own, without a second derivative."""

    def forward(self, tokens):
        return self.out(OnceOnly.apply(self.embed(tokens)))


def test_fused_attention_is_replaced_where_second_derivatives_are_taken():
    record = train(Fused(), OPTIMIZERS["adamw"])
    assert record.influence(readout, 12).scores["value"].is_finite().all()


def test_an_operation_without_a_second_derivative_is_named():
    record = train(NotTwice(), OPTIMIZERS["adamw"])
    with pytest.raises(MechError, match="an operation without a second derivative.* → influence needs one"):
        record.influence(readout, 12)


def test_what_cannot_be_replayed_is_named():
    model = Bigrams()
    for optimizer, message in (
        (torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1), "SGD with weight_decay"),
        (torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True), "SGD with nesterov"),
        (torch.optim.Adam(model.parameters(), amsgrad=True), "Adam with amsgrad"),
        (torch.optim.RMSprop(model.parameters()), "optimizer RMSprop"),
    ):
        with pytest.raises(MechError, match=message):
            TrainingRecord(model, TOKENS, ORDER, optimizer)
    record = train(model, OPTIMIZERS["adamw"])
    with pytest.raises(MechError, match="no state was kept at step 7"):
        record.influence(readout, 7)
    with pytest.raises(MechError, match="not a differentiable scalar"):
        record.influence(lambda m: readout(m).detach(), 12)


def test_a_replay_that_adams_epsilon_spoils_says_so():
    """A key bias has no gradient but rounding; with a tiny eps, Adam makes full steps of it, other ones for other kernels."""
    torch.manual_seed(0)
    record = train(gpt2(), lambda p: torch.optim.AdamW(p, lr=1e-2, eps=1e-12), halves=True)
    with pytest.raises(MechError, match="gradient is rounding, which adamw with eps=1e-12 .* eps, for example 1e-06"):
        record.influence(readout, 12)
    torch.manual_seed(0)
    record = train(gpt2(), lambda p: torch.optim.AdamW(p, lr=1e-2, eps=1e-6), halves=True)
    assert record.influence(readout, 12).scores["value"].is_finite().all()


def test_a_replay_of_another_order_does_not_blame_epsilon():
    torch.manual_seed(0)
    record = train(gpt2(), lambda p: torch.optim.AdamW(p, lr=1e-2, eps=1e-12), order=ORDER.flip(0))
    with pytest.raises(MechError, match="does not reach the state kept at step") as caught:
        record.influence(readout, 12)
    assert "eps" not in str(caught.value)


def test_the_example_of_the_docs_runs(capsys):
    page = ROOT / "docs" / "python.md"
    (block,) = re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.S)
    exec(compile(block, "docs/python.md", "exec"), {})
    assert "component" in capsys.readouterr().out
