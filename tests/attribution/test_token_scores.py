"""Scores per token in both meanings: the position whose activations were used, and the token whose loss it was."""

import pytest
import torch

from mech_pipeline.attribution.per_example.capture import example_factors
from mech_pipeline.attribution.per_example.contraction import Contraction
from mech_pipeline.attribution.per_example.target_tokens import target_scores
from mech_pipeline.training.model import next_token_losses
from tests.support.models import ARCHITECTURES, components
from tests.support.per_example import assert_close, random_directions, weights_of_each_position


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_position_counts_what_went_through_its_activations(make_trainer, architecture):
    trainer = make_trainer(ARCHITECTURES[architecture])
    directions, tokens = random_directions(trainer, 2), trainer.pool[:3]
    contraction = Contraction(trainer.flat, components(trainer))
    found = contraction.per_token(example_factors(trainer.flat.model, tokens), directions)
    truth = torch.stack([weights_of_each_position(trainer, tokens, direction) for direction in directions])
    assert_close(found, truth, 1e-12)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("neurons", [False, True])
def test_positions_and_components_sum_to_the_example(make_trainer, architecture, neurons):
    trainer = make_trainer(ARCHITECTURES[architecture])
    directions, tokens = random_directions(trainer, 4), trainer.pool[:3]
    contraction = Contraction(trainer.flat, components(trainer, neurons=neurons))
    factors = example_factors(trainer.flat.model, tokens)
    examples = contraction(factors, directions)
    by_component = contraction.per_token(factors, directions, components=True)
    assert_close(by_component.sum(2), examples, 1e-12)
    assert_close(contraction.per_token(factors, directions), by_component.sum(-1), 1e-12)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_target_counts_its_own_loss(make_trainer, architecture):
    trainer = make_trainer(ARCHITECTURES[architecture])
    tokens, direction = trainer.pool[:2], random_directions(trainer, 1)[0]
    found = target_scores(trainer.flat, tokens, direction)
    truth = torch.zeros_like(found)
    for row, example in enumerate(tokens):
        for column in range(found.shape[1]):
            loss = next_token_losses(trainer.flat.model, example[None])[0, column]
            truth[row, column] = trainer.flat.gradient(loss) @ direction / found.shape[1]
    assert_close(found, truth, 1e-12)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_targets_sum_to_the_example(make_trainer, architecture):
    trainer = make_trainer(ARCHITECTURES[architecture])
    tokens, directions = trainer.pool[:3], random_directions(trainer, 1)
    factors = example_factors(trainer.flat.model, tokens)
    examples = Contraction(trainer.flat, components(trainer))(factors, directions)[0].sum(-1)
    assert_close(target_scores(trainer.flat, tokens, directions[0]).sum(1), examples, 1e-12)
    assert all(parameter.requires_grad for parameter in trainer.flat.parameters)


def test_the_two_meanings_of_a_token_differ(make_trainer):
    trainer = make_trainer()
    tokens, directions = trainer.pool[:3], random_directions(trainer, 1)
    factors = example_factors(trainer.flat.model, tokens)
    positions = Contraction(trainer.flat, components(trainer)).per_token(factors, directions)[0]
    assert (positions - target_scores(trainer.flat, tokens, directions[0])).abs().max() > 1e-3 * positions.abs().max()
