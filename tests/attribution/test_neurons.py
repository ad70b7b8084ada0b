"""What made a neuron, against one backward per position; and whether it matters for those tokens."""

import numpy as np
import pytest
import torch

from mech_pipeline.attribution.ledger.ledger import movement
from mech_pipeline.attribution.ledger.neurons import effective_tokens
from mech_pipeline.errors import MechError
from mech_pipeline.mechanisms.ablation.neuron_ablation import ablated_increase, ablation_effect, matched_tokens
from mech_pipeline.training.update.optimizer import coefficients, scaling
from tests.support.models import ARCHITECTURES, OPTIMIZERS, VOCABULARY
from tests.support.neurons import BEGIN, END, account_of
from tests.support.per_example import weights_of_each_position

WITH_MLP = [name for name, model in ARCHITECTURES.items() if model.family != "native" or model.d_mlp]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("architecture", WITH_MLP)
def test_everything_sums_to_how_far_each_part_moved(make_trainer, architecture, optimizer):
    trainer = make_trainer(ARCHITECTURES[architecture], OPTIMIZERS[optimizer])
    states, parts, account = account_of(trainer)
    moved = states[END].theta - states[BEGIN].theta
    assert {name.split(".")[1] for name in account.names} <= {"in", "out", "gate"}
    for place, name in enumerate(account.names):
        exact = moved[parts.index == parts.names.index(name)].norm()
        assert float(account.displacement[place]) == pytest.approx(float(exact), rel=1e-12)
    assert float(account.imbalance().abs().max()) < 1e-9
    assert float(account.momentum.abs().max()) > 0, "else nothing is carried in, and the test says less"


@pytest.mark.parametrize("architecture", ["mlp and layer norm", "llama with shared keys"])
def test_a_window_in_pieces_is_the_same_window(make_trainer, architecture):
    chosen = ARCHITECTURES[architecture], OPTIMIZERS["adam, coupled decay, cosine"]
    _, _, whole = account_of(make_trainer(*chosen))
    _, _, pieces = account_of(make_trainer(*chosen), bounds=(BEGIN, 8, 9, END))
    for field in ("displacement", "tokens", "weight_decay", "momentum"):
        torch.testing.assert_close(getattr(pieces, field), getattr(whole, field), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(pieces.contexts.score, whole.contexts.score, rtol=1e-9, atol=1e-12)
    assert torch.equal(pieces.contexts.update, whole.contexts.update)


@pytest.mark.parametrize("optimizer", ["adamw, clip and decay", "sgd with momentum"])
@pytest.mark.parametrize("architecture", ["mlp and layer norm", "gpt2", "llama with shared keys"])
def test_scores_of_positions_are_those_of_one_backward_each(make_trainer, architecture, optimizer):
    trainer = make_trainer(ARCHITECTURES[architecture], OPTIMIZERS[optimizer])
    states, parts, account = account_of(trainer, contexts=4)
    place = next(i for i, name in enumerate(account.names) if name.endswith(".in"))
    mask = (parts.index == parts.names.index(account.names[place])).double()
    along = movement(parts, states[BEGIN].theta, states[END].theta)
    tokens = torch.zeros(VOCABULARY, dtype=torch.float64)
    single = []
    later = torch.zeros_like(along)
    for made in reversed(list(trainer.updates(states[BEGIN], END))):
        c = coefficients(trainer.optimizer, made.before.step)
        later = (
            c.beta * later
            + (c.learning_rate / c.r1) * scaling(trainer.optimizer, made.after.v, made.before.step) * along
        )
        trainer.flat.load(made.before.theta)
        batch = trainer.tokens(made.examples)
        scores = weights_of_each_position(trainer, batch, later * mask) * (-c.kappa * made.clip / len(batch))
        tokens.index_add_(0, batch[:, :-1].flatten(), scores.flatten())
        single += [
            (float(score), made.before.step, int(made.examples[i]), p)
            for i, row in enumerate(scores)
            for p, score in enumerate(row)
        ]
    torch.testing.assert_close(account.tokens[:, place], tokens, rtol=1e-8, atol=1e-13)
    best = sorted(single, reverse=True)[:4]
    found = account.contexts
    assert found.score[:, place].tolist() == pytest.approx([row[0] for row in best], rel=1e-8)
    assert found.update[:, place].tolist() == [row[1] for row in best]
    assert list(zip(found.example[:, place].tolist(), found.position[:, place].tolist(), strict=True)) == [
        row[2:] for row in best
    ]


def test_attention_alone_has_no_neurons(make_trainer):
    with pytest.raises(MechError, match="no component fits"):
        account_of(make_trainer(ARCHITECTURES["attention-only"]))


def test_effective_tokens_count_equal_shares():
    scores = torch.tensor([[2.0, 1.0, 1.0, -1.0], [0.0, 1.0, 1.0, -2.0], [0.0, 1.0, 0.0, 0.0], [-3.0, 1.0, 0.0, 0.0]])
    found = effective_tokens(scores)
    torch.testing.assert_close(found[:3], torch.tensor([1.0, 4.0, 2.0]))
    assert found[3].isnan()
    uneven = effective_tokens(torch.tensor([[0.9], [0.1]]))
    assert 1 < float(uneven[0]) < 2


def test_a_neuron_that_predicts_after_its_token_is_missed_there_and_nowhere_else(make_trainer):
    trainer = make_trainer(ARCHITECTURES["gpt2"], dtype=torch.float32)
    model = trainer.flat.model
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        width = model.config.n_embd
        model.transformer.wte.weight[:width] = torch.eye(VOCABULARY, width)[:width]
        block = model.transformer.h[0]
        for norm in (
            block.ln_1,
            block.ln_2,
            model.transformer.ln_f,
            model.transformer.h[1].ln_1,
            model.transformer.h[1].ln_2,
        ):
            norm.weight.fill_(1.0)
        block.mlp.c_fc.weight[3, 0] = 5.0  # reads token 3
        block.mlp.c_proj.weight[0, 1] = 0.3  # says token 1
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(2, width, (16, 12), generator=generator)
    tokens[:, 1:] = torch.where(tokens[:, :-1] == 3, 1, tokens[:, 1:])
    increase = ablated_increase(model, tokens, 0, 0)
    there = tokens[:, :-1] == 3
    assert float(increase[there].mean()) > 0.5
    effect = ablation_effect(increase, tokens, [3], [4], np.random.default_rng(0))
    assert effect.positions == int(there.sum())
    assert effect.attributed == pytest.approx(float(increase[there].mean()), rel=1e-5)
    assert effect.low > 0.3
    idle = ablated_increase(model, tokens, 0, 1)
    assert float(idle.abs().max()) == 0.0
    assert ablation_effect(increase, tokens, [0], [4], np.random.default_rng(0)) is None, "token 0 is nowhere"
    with pytest.raises(MechError, match="neurons 0 to 11"):
        ablated_increase(model, tokens, 0, 12)


def test_matches_have_the_frequency_of_what_they_are_matched_with():
    counts = torch.tensor([0, 1000, 990, 10, 11, 0, 500] + [1] * 100)
    generator = np.random.default_rng(0)
    found = matched_tokens(counts, [7, 8, 9], generator)
    assert len(set(found)) == 3
    assert not {7, 8, 9} & set(found)
    assert all(counts[token] == 1 for token in found)
    few = torch.tensor([5, 5, 0])
    assert matched_tokens(few, [0], generator) == [1]
    with pytest.raises(MechError, match="no token is left"):
        matched_tokens(few, [0, 1], generator)
