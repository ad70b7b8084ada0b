"""Per-example contraction against one backward per example, for every kind of layer."""

import pytest
import torch

from mech_pipeline.attribution.components import components_of
from mech_pipeline.attribution.contraction import Capture, Contraction
from mech_pipeline.training.model import example_losses
from mech_pipeline.training.optimizer import State
from tests.conftest import ARCHITECTURES, components


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 1e-6)])
def test_contraction_equals_one_backward_per_example(make_trainer, architecture, dtype, tolerance):
    trainer = make_trainer(ARCHITECTURES[architecture], dtype=dtype)
    parts = components(trainer)
    directions = torch.randn(3, len(trainer.flat.vector), generator=torch.Generator().manual_seed(1), dtype=dtype)
    with Capture(trainer.flat.model) as capture:
        made = trainer.step(State.initial(trainer.flat.vector))
    fast = Contraction(trainer.flat, parts)(capture.factors(), directions)
    slow = torch.zeros_like(fast)
    for row, example in enumerate(made.examples):
        loss = example_losses(trainer.flat.model, trainer.pool[example][None])[0] / len(made.examples)
        gradient = trainer.flat.gradient(loss)
        for index, direction in enumerate(directions):
            slow[index, row] = parts.sums(gradient * direction)
    scale = slow.abs().max()
    assert (fast - slow).abs().max() / scale < tolerance


def test_capturing_factors_does_not_change_a_bit_of_the_gradient(make_trainer):
    trainer = make_trainer(dtype=torch.float32)
    state = State.initial(trainer.flat.vector)
    plain = trainer.step(state)
    with Capture(trainer.flat.model):
        captured = trainer.step(state)
    assert torch.equal(plain.gradient, captured.gradient)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_parameter_belongs_to_exactly_one_component(make_trainer, architecture):
    trainer = make_trainer(ARCHITECTURES[architecture])
    parts = components(trainer)
    vector = torch.randn(len(trainer.flat.vector), dtype=torch.float64)
    assert len(parts.index) == len(vector)
    assert parts.sums(vector).sum() == pytest.approx(float(vector.sum()), rel=1e-12)
    assert set(parts.index.tolist()) == set(range(len(parts.names)))


def test_output_weights_split_by_input_slice(make_trainer):
    trainer = make_trainer()
    parts = components_of(trainer.flat, heads=2)
    index = trainer.flat.named(parts.index)["layers.0.attn.o.weight"]
    names = [[parts.names[int(i)] for i in row] for row in index]
    assert all(row == ["L0H0.O"] * 4 + ["L0H1.O"] * 4 for row in names)


def test_a_layer_of_unknown_kind_is_refused():
    with pytest.raises(TypeError, match="Conv1d"):
        Capture(torch.nn.Sequential(torch.nn.Conv1d(2, 2, 1)))
