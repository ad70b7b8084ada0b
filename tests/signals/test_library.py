"""Signals against truths on paper, in every model family."""

import math
from dataclasses import replace

import pytest
import torch

from mech_pipeline.mechanisms.detectors.composition import composition_scores
from mech_pipeline.signals.moment import GRADIENTS, Moment
from mech_pipeline.signals.registry import _version, signal_names, signal_versions, signals
from mech_pipeline.training.bridging import bridge
from mech_pipeline.training.flat import FlatModel
from mech_pipeline.training.model import build_model, example_losses
from tests.support.models import ARCHITECTURES, CONTEXT, VOCABULARY

MODEL = ARCHITECTURES["mlp and layer norm"]


def moment(model=MODEL, count=60, **change):
    """A moment of a freshly built model on random tokens; the checkpoint before is a little off."""
    flat = FlatModel(build_model(model, VOCABULARY, CONTEXT, 0))
    generator = torch.Generator().manual_seed(1)
    sample = torch.randint(0, VOCABULARY, (count, CONTEXT), generator=generator)
    theta = flat.vector.detach().clone()
    before = theta + 0.01 * torch.randn(theta.shape, generator=generator)
    places = torch.zeros(len(theta), dtype=torch.long)
    return replace(Moment(40, flat, theta, before, theta.detach() ** 2, sample, places), **change)


class Planted(Moment):
    """A moment whose losses or gradients are given."""

    def __init__(self, losses=None, gradients=None, losses_before=None, **known):
        some = moment()
        values = {name: getattr(some, name) for name in ("step", "flat", "theta", "before", "second_moment", "sample")}
        values["component_index"] = some.component_index
        if "theta" in known:
            values |= {"second_moment": None, "component_index": torch.zeros_like(known["theta"], dtype=torch.long)}
        super().__init__(**values | known)
        if losses is not None:
            self.__dict__["losses"] = torch.tensor(losses, dtype=torch.float64)
        if losses_before is not None:
            self.__dict__["losses_before"] = torch.tensor(losses_before, dtype=torch.float64)
        if gradients is not None:
            self.__dict__["gradients"] = torch.tensor(gradients)


def value(name, at):
    return signals()[name].compute(at)


def at_one_layer(architecture):
    return ARCHITECTURES[architecture].layers == 1


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_signal_is_a_number_of_every_family_and_leaves_the_weights_alone(architecture):
    at = moment(ARCHITECTURES[architecture])
    for name in signal_names():
        found = value(name, at)
        assert isinstance(found, float), name
        may_abstain = {"gradient_noise_scale"} | ({"key_composition"} if at_one_layer(architecture) else set())
        assert math.isfinite(found) or name in may_abstain, name
        assert torch.equal(at.flat.vector, at.theta), name


def test_at_the_first_checkpoint_what_compares_abstains():
    first = moment(before=None, second_moment=None)
    abstaining = {name for name in signal_names() if math.isnan(value(name, first))}
    assert abstaining == {
        *("gradient_update_alignment", "loss_slope", "second_moment_anomaly", "update_concentration"),
        *("tail_improvement", "improvement_skewness"),
        "key_composition",  # of one layer
    }


def test_every_signal_says_what_it_is():
    assert {"elapsed_step", "parameter_norm", "gradient_norm", "training_loss", "loss_slope", "rare_token_loss"} <= {
        name for name, signal in signals().items() if signal.baseline
    }
    for name, signal in signals().items():
        assert signal.unit, name
        assert signal.meaning, name
        assert signal.source, name
        assert signal.name == name


def test_versions_are_read_without_loading(tmp_path):
    assert signal_versions() == {name: signal.version for name, signal in signals().items()}
    file = tmp_path / "raised.py"
    file.write_text('SIGNAL = Signal(float, "1", "m", "s", version="7")')
    assert _version(file) == "7"


def test_gradients_are_those_of_one_backward_for_each_example():
    at = moment()
    assert len(at.gradients) == GRADIENTS
    for row, example in zip(at.gradients[:3], at.sample[:3], strict=True):
        alone = at.flat.gradient(example_losses(at.model, example[None])[0])
        torch.testing.assert_close(row, alone, atol=1e-6, rtol=1e-4)


def test_the_slope_of_the_loss_is_its_fall():
    at = moment()
    at.flat.load(at.before)
    earlier = float(example_losses(at.model, at.sample).mean().detach())
    at.flat.load(at.theta)
    assert value("loss_slope", at) == pytest.approx(earlier - value("training_loss", at), abs=1e-6)


def test_two_kinds_of_examples_are_bimodal_and_one_kind_is_not():
    assert value("loss_bimodality", Planted([0.0, 0.0, 1.0, 1.0])) == pytest.approx(1)
    normal = torch.randn(20_000, generator=torch.Generator().manual_seed(0)).tolist()
    assert value("loss_bimodality", Planted(normal)) == pytest.approx(1 / 3, abs=0.02)
    assert math.isnan(value("loss_bimodality", Planted([2.0, 2.0])))
    assert value("loss_dispersion", Planted([1.0, 3.0])) == pytest.approx(math.sqrt(2) / 2)
    assert value("worst_example_loss", Planted([0.0] * 38 + [4.0, 6.0])) == 5.0


def test_what_the_worst_gain_alone_is_told_from_what_all_gain():
    """Two of forty examples are bad: all gain alike; nobody gains; the bad alone gain."""
    before = [1.0] * 38 + [5.0, 5.0]
    for after, gained in ([0.5] * 38 + [4.5, 4.5], 0), (before, 0), ([1.0] * 38 + [2.0, 3.0], 2.5):
        assert value("tail_improvement", Planted(after, losses_before=before)) == pytest.approx(gained)
    assert value("tail_excess", Planted(before)) == pytest.approx(4)
    assert value("tail_excess", Planted([2.0 * loss for loss in before])) == pytest.approx(4)
    alone = [1.0] * 38 + [3.0, 3.0]
    share = 2 / 40
    assert value("improvement_skewness", Planted(alone, losses_before=before)) == pytest.approx(
        (1 - 2 * share) / math.sqrt(share * (1 - share))
    )
    assert math.isnan(value("improvement_skewness", Planted(before, losses_before=before)))


def test_losses_of_the_checkpoint_before_are_those_of_its_weights():
    at = moment()
    found = at.losses_before
    assert torch.equal(at.flat.vector, at.theta)
    at.flat.load(at.before)
    torch.testing.assert_close(found, example_losses(at.model, at.sample).double().detach(), atol=1e-5, rtol=1e-5)


def test_gradients_that_are_all_alike_have_no_entropy_and_orthogonal_ones_have_all():
    assert value("gradient_spectral_entropy", Planted(gradients=[[2.0, 0.0], [5.0, 0.0]])) == pytest.approx(0, abs=1e-6)
    assert value("gradient_spectral_entropy", Planted(gradients=[[2.0, 0.0], [0.0, 5.0]])) == pytest.approx(1)


def test_the_noise_scale_is_that_of_a_planted_spread():
    """Gradients of mean (1, 0, …) and variance 4 in each of 50 directions: tr Σ / ‖g‖² = 200."""
    drawn = 2 * torch.randn(4000, 50, generator=torch.Generator().manual_seed(0))
    drawn[:, 0] += 1
    found = value("gradient_noise_scale", Planted(gradients=drawn.tolist()))
    assert found == pytest.approx(math.log(200), abs=0.15)


def test_a_step_down_the_gradient_is_aligned():
    some = moment()
    down = replace(some, before=some.theta + 0.1 * some.mean_gradient)
    assert value("gradient_update_alignment", down) == pytest.approx(1, abs=1e-3)


def test_a_displacement_that_serves_one_example_is_concentrated():
    moved = {"theta": torch.tensor([1.0, 1.0]), "before": torch.tensor([0.0, 0.0])}
    all_alike = Planted(gradients=[[1.0, 0.0], [0.0, -1.0]], **moved)
    assert value("update_concentration", all_alike) == pytest.approx(0)
    only_one = Planted(gradients=[[1.0, 0.0], [1.0, -1.0]], **moved)
    assert value("update_concentration", only_one) == pytest.approx(0.5)


def test_an_expected_gradient_is_no_anomaly():
    some = moment()
    known = replace(some, second_moment=some.mean_gradient**2)
    assert value("second_moment_anomaly", known) == pytest.approx(0, abs=1e-5)
    quiet = replace(some, second_moment=some.mean_gradient**2 / math.e)
    assert value("second_moment_anomaly", quiet) == pytest.approx(1, abs=1e-5)


class Quadratic(Moment):
    """Two batches with losses ½ θᵀ H θ."""

    def __init__(self, one, two):
        some = moment()
        theta = torch.tensor([3.0, 4.0])
        super().__init__(1, some.flat, theta, None, None, some.sample, torch.zeros(2, dtype=torch.long))
        self.matrices = {0: torch.tensor(one), GRADIENTS // 2: torch.tensor(two)}

    def gradient_at(self, theta, examples):
        return self.matrices[examples.start] @ theta


def test_the_order_of_steps_matters_as_much_as_on_paper():
    """Exactly θ_AB − θ_BA = η_A η_B (H_B H_A − H_A H_B) θ."""
    one, two = [[2.0, 0.0], [0.0, 1.0]], [[1.0, 1.0], [1.0, 1.0]]
    at = Quadratic(one, two)
    a, b, theta = torch.tensor(one), torch.tensor(two), at.theta
    expected = ((b @ a - a @ b) @ theta).norm() * theta.norm() ** 2 / (a @ theta).norm() / (b @ theta).norm()
    assert value("step_commutator", at) == pytest.approx(math.log(expected / theta.norm()), abs=1e-3)


def test_composition_is_the_detectors_largest_raw_score():
    model = ARCHITECTURES["attention-only"]
    at = moment(model)
    built = build_model(model, VOCABULARY, CONTEXT, 0, for_bridge=True)
    scores = composition_scores(bridge(built), "K", draws=2).score
    assert value("key_composition", at) == pytest.approx(float(scores.max()) - 8**-0.5, abs=1e-5)


def test_rare_targets_are_the_tokens_that_come_least_often():
    sample = torch.zeros(20, 6, dtype=torch.long)
    sample[0, 3] = 5  # once in 100 targets, and twice token 7
    sample[1, 2:4] = 7
    rare = moment(sample=sample).rare_targets
    assert rare.sum() == 3
    assert rare[0, 2]
    assert rare[1, 1:3].all()
