"""Averages of ∇M along a window: what updates and windows share changes no bit of them."""

import copy
from functools import partial

import pytest
import torch

from mech_pipeline.attribution.ledger.ledger import replay_with_factors, window_account
from mech_pipeline.attribution.ledger.quadrature import path_averages
from mech_pipeline.attribution.per_example.contraction import Contraction
from mech_pipeline.mechanisms.registry import MECHANISMS
from mech_pipeline.training.flat import FlatModel
from mech_pipeline.training.update.optimizer import State
from tests.support.ledgers import SMOOTH
from tests.support.models import ARCHITECTURES, OPTIMIZERS, components, in_micro_batches, mechanism_of, with_weights

UPDATES = 11
"""More than are looked at together, and not a multiple of that."""


class Counted:
    """∇M in the trainer's precision and M in double, both counted."""

    def __init__(self, trainer, probe):
        self._at, _ = mechanism_of(trainer, probe, SMOOTH)
        self._exact, self._probe = FlatModel(copy.deepcopy(trainer.flat.model).double()), probe
        self.gradients = self.values = 0

    def gradient(self, theta):
        self.gradients += 1
        return self._at(theta)

    def value(self, theta):
        self.values += 1
        self._exact.load(theta.double())
        with torch.no_grad():
            return float(MECHANISMS[SMOOTH].value(self._exact.model, self._probe))


def trained(make_trainer, probe, architecture="attention-only", optimizer="adamw, clip and decay", rate=1.0):
    """A float32 training at a multiple of the learning rate: its updates, and what is measured along them."""
    spec = OPTIMIZERS[optimizer]
    spec = spec.model_copy(update={"learning_rate": spec.learning_rate * rate})
    trainer = make_trainer(ARCHITECTURES[architecture], spec, dtype=torch.float32)
    return list(trainer.updates(State.initial(trainer.flat.vector), UPDATES)), Counted(trainer, probe)


@pytest.mark.parametrize("rate", [1 / 20, 1, 5])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_an_update_has_the_average_in_a_window_that_it_has_alone(
    make_trainer, tiny_probe, architecture, optimizer, rate
):
    """Alone it is held against M's true change over itself; in a window several are, where they can be, together."""
    updates, measured = trained(make_trainer, tiny_probe, architecture, optimizer, rate)
    together = path_averages(measured.gradient, updates, measured.value)
    for made, average, explained in zip(updates, together.gradients, together.explained, strict=True):
        alone = path_averages(measured.gradient, [made], measured.value)
        assert torch.equal(average, alone.gradients[0])
        assert explained == alone.explained[0]


def test_finer_panels_are_the_composite_rule_written_out(make_trainer, tiny_probe):
    """Nodes that coarser panels had are not computed again, and no bit tells."""
    updates, measured = trained(make_trainer, tiny_probe, optimizer="adamw, never clipped", rate=5)

    def by_hand(made, panels):
        start, step = made.before.theta, made.after.theta - made.before.theta
        total = measured.gradient(start) + measured.gradient(made.after.theta)
        for node in range(1, 2 * panels):
            total = total + (4 if node % 2 else 2) * measured.gradient(start + step * (node / (2 * panels)))
        return total / (6 * panels)

    panels = []
    for made, average in zip(updates, path_averages(measured.gradient, updates, measured.value).gradients, strict=True):
        panels.append(next((n for n in (1, 2, 4, 8) if torch.equal(average, by_hand(made, n))), None))
    assert None not in panels
    assert max(panels) >= 4


def test_a_gentle_window_costs_two_gradients_an_update_and_few_values(make_trainer, tiny_probe):
    updates, measured = trained(make_trainer, tiny_probe, rate=1 / 200)
    whole = path_averages(measured.gradient, updates, measured.value)
    assert measured.gradients == 2 * UPDATES + 1
    assert measured.values == 3, "before, after eight, and after all"
    assert whole.change == measured.value(updates[-1].after.theta) - measured.value(updates[0].before.theta)
    measured.gradients = measured.values = 0
    after = path_averages(measured.gradient, updates[6:], measured.value)
    before = path_averages(measured.gradient, updates[:6], measured.value, after.begin)
    assert (measured.gradients, measured.values) == (2 * UPDATES + 1, 3), "the state between is looked at once"
    assert all(map(torch.equal, whole.gradients, before.gradients + after.gradients))


def test_a_doubled_update_costs_two_gradients_more(make_trainer, tiny_probe):
    updates, measured = trained(make_trainer, tiny_probe, rate=1 / 2)
    for made in updates:
        measured.gradients = 0
        path_averages(measured.gradient, [made], measured.value)
        assert measured.gradients in (3, 5, 9, 17), "1, 2, 4, 8 panels"


VARIANTS = {
    "plain": lambda trainer: trainer,
    "micro-batches": partial(in_micro_batches, count=2),
    "weights": lambda trainer: with_weights(trainer, torch.linspace(0, 2, len(trainer.pool))),
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_windows_of_any_length_share_their_seams_without_a_trace(make_trainer, tiny_probe, optimizer, variant):
    """From the first update to the last, with windows of one update at both ends and inside."""
    trainer = VARIANTS[variant](make_trainer(optimizer=OPTIMIZERS[optimizer], dtype=torch.float32))
    measured, parts, state, windows = Counted(trainer, tiny_probe), components(trainer), None, []
    for until in (1, 2, 7, 8, 12, 13):
        windows.append(replay_with_factors(trainer, state or State.initial(trainer.flat.vector), until))
        state = windows[-1][0][-1].after

    def accounts(*, shared):
        found = []
        for updates, factors in reversed(windows):
            later = found[-1] if found else None
            found.append(
                window_account(
                    trainer.optimizer,
                    parts,
                    Contraction(trainer.flat, parts),
                    measured.gradient,
                    updates,
                    factors,
                    later and later.carry,
                    measured.value,
                    end=later.begin if shared and later else None,
                )
            )
        return found

    for one, other in zip(accounts(shared=True), accounts(shared=False), strict=True):
        for name in ("examples", "examples_later", "weight_decay", "weight_decay_later", "momentum", "carry"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name
        assert (one.gross, one.change) == (other.gross, other.change)
