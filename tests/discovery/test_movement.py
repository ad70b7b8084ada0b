"""Loss changes of probe tokens: against brute force, against finite differences, and they sum to what was measured."""

from itertools import pairwise

import pytest
import torch

from mech_pipeline.discovery.movement import Meter
from mech_pipeline.discovery.probe_tokens import ProbeTokens
from mech_pipeline.training.flat import FlatModel
from mech_pipeline.training.update.optimizer import State
from tests.support.models import ARCHITECTURES, CONTEXT, VOCABULARY, components, trainer_of

CHOSEN = ("attention-only", "mlp and layer norm", "gpt2", "llama with shared keys")


def probe(count=7):
    generator = torch.Generator().manual_seed(5)
    tokens = torch.randint(0, VOCABULARY, (count, CONTEXT), generator=generator)
    return ProbeTokens(tokens, 1 + torch.arange(count) % (CONTEXT - 1))


def trained(architecture, dtype=torch.float64, updates=6):
    """A trainer, a meter and the states of a path."""
    trainer = trainer_of(ARCHITECTURES[architecture], dtype=dtype)
    start = State.initial(trainer.flat.vector)
    states = [start.theta, *(made.after.theta for made in trainer.updates(start, updates))]
    exact = trainer_of(ARCHITECTURES[architecture]).flat
    return trainer, Meter(trainer.flat, exact, components(trainer), probe()), states


def slow_loss(flat: FlatModel, theta, row):
    """One token's loss, the obvious way."""
    flat.load(theta)
    some = probe()
    place = int(some.position[row])
    logits = flat.model(some.tokens[row : row + 1, :place])[0, -1]
    return torch.nn.functional.cross_entropy(logits, some.tokens[row, place])


@pytest.mark.parametrize("architecture", CHOSEN)
def test_it_is_the_integral_of_each_tokens_gradient_along_each_components_movement(architecture):
    trainer, meter, states = trained(architecture, updates=2)
    parts = components(trainer)
    found = meter.movement(states).parts
    for row in range(len(probe())):
        expected = torch.zeros(len(parts.names), dtype=torch.float64)
        for begin, end in pairwise(states):
            for k in range(20):  # midpoints: error of order 1/400 of the curvature
                at = begin + (k + 0.5) / 20 * (end - begin)
                gradient = trainer.flat.gradient(slow_loss(trainer.flat, at, row))
                expected += parts.sums(gradient * (end - begin)) / 20
        assert torch.allclose(found[row], expected, rtol=2e-3, atol=2e-6)


@pytest.mark.parametrize("architecture", CHOSEN)
def test_on_a_short_path_it_is_what_moving_one_component_does(architecture):
    trainer, meter, states = trained(architecture, updates=1)
    parts, small = components(trainer), 1e-4
    step = (states[1] - states[0]) * small
    found = meter.movement([states[0] - step / 2, states[0] + step / 2]).parts
    for index in range(len(parts.names)):
        alone = torch.where(parts.index == index, step, 0.0)
        for row in (0, 3, 6):
            ahead, behind = (slow_loss(trainer.flat, states[0] + s * alone / 2, row) for s in (1, -1))
            assert float(found[row, index]) == pytest.approx(float((ahead - behind).detach()), rel=1e-4, abs=1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_over_components_it_sums_to_the_measured_change_of_every_token(architecture, dtype):
    _, meter, states = trained(architecture, dtype, updates=12)
    found = meter.movement(states)
    assert float((found.after - found.before).abs().max()) > 0.05, "nothing was learnt, so nothing is tested"
    assert bool(found.balanced.all()), float(found.error.max())


def test_the_straight_line_sums_to_the_same_change_by_other_components():
    _, meter, states = trained("mlp and layer norm", updates=12)
    path, line = meter.movement(states), meter.movement([states[0], states[-1]])
    assert bool(line.balanced.all())
    assert torch.allclose(path.parts.sum(1), line.parts.sum(1), atol=1e-5)
    assert not torch.allclose(path.parts, line.parts, atol=1e-3)


def test_more_nodes_on_fewer_pieces_sum_to_the_same_and_pieces_come_nearer_to_the_path():
    _, meter, states = trained("mlp and layer norm", updates=12)
    path = meter.movement(states).parts
    off = []
    for between, nodes in ((12, 6), (6, 4), (3, 4)):
        found = meter.movement(states[::between], nodes)
        assert bool(found.balanced.all())
        off.append(float((found.parts - path).abs().sum() / path.abs().sum()))
    assert off[0] > off[1] > off[2] > 1e-6


def test_losses_are_those_of_the_tokens_alone():
    trainer, meter, states = trained("gpt2")
    expected = [float(slow_loss(trainer.flat, states[3], row).detach()) for row in range(len(probe()))]
    assert meter.losses(states[3]).tolist() == pytest.approx(expected, abs=1e-12)


def test_a_path_that_misses_its_change_is_cut_finer():
    """Two nodes on one long line are not enough; the balance sees it."""
    _, meter, states = trained("attention-only", updates=1)
    far = states[0] + 60 * (states[1] - states[0])
    before, after = meter.losses(states[0]), meter.losses(far)
    coarse, _ = meter._along([states[0], far], nodes=2, panels=1)
    assert float((coarse.sum(1) - (after - before)).abs().max()) > 1e-3
    assert bool(meter.movement([states[0], far]).balanced.all())
