"""Weights of single examples: what a file says is what the loss, the ledger and influence see."""

import numpy as np
import polars as pl
import pytest
import torch

from mech_pipeline.attribution.influence.reliability import metasmoothness
from mech_pipeline.attribution.per_example.capture import Capture
from mech_pipeline.attribution.per_example.contraction import Contraction
from mech_pipeline.data.example_weights import LAST, ExampleWeights, read_weights
from mech_pipeline.data.weights_file import weights_sha256
from mech_pipeline.errors import MechError
from mech_pipeline.mechanisms.registry import MECHANISMS
from mech_pipeline.training.model import example_losses
from mech_pipeline.training.update.optimizer import State
from tests.support.influence import STEPS, initial_theta, sweep, train
from tests.support.ledgers import ledger
from tests.support.models import OPTIMIZERS, components, with_weights

IDS = np.array([0xAA, 0x05, 0xBB], dtype=np.uint64)


def hexadecimal(number):
    return f"{number:016x}"


def read(path, rows):
    pl.DataFrame(rows).write_csv(path) if path.suffix == ".csv" else pl.DataFrame(rows).write_parquet(path)
    return read_weights(str(path), weights_sha256(str(path)), IDS)


@pytest.mark.parametrize("name", ["w.csv", "w.parquet"])
def test_weights_hold_in_their_windows_and_are_one_elsewhere(tmp_path, name):
    rows = {
        "example_id": [hexadecimal(0xBB), hexadecimal(0x05), hexadecimal(0xBB)],
        "weight": [0.5, 2.0, 0.0],
        "first_update": [3, None, 7],
        "last_update": [5, None, None],
    }
    weights = read(tmp_path / name, rows)
    batch = torch.tensor([0, 2, 1, 2])
    assert weights.at(2, batch).tolist() == [1, 1, 2, 1]
    assert weights.at(3, batch).tolist() == weights.at(5, batch).tolist() == [1, 0.5, 2, 0.5]
    assert weights.at(6, batch).tolist() == [1, 1, 2, 1]
    assert weights.at(10**9, batch).tolist() == [1, 0, 2, 0]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"example_id": ["0" * 15 + "c"], "weight": [1.0]}, "example 000000000000000c is not in the pool"),
        ({"example_id": ["xyz"], "weight": [1.0]}, "'xyz' is no example id"),
        ({"example_id": [hexadecimal(5)], "weight": [-0.5]}, "weight of example 0000000000000005 is -0.5"),
        ({"example_id": [hexadecimal(5)], "weight": [float("nan")]}, "0000000000000005 is nan; weights are finite"),
        ({"example_id": [hexadecimal(5)], "weight": [float("inf")]}, "0000000000000005 is inf"),
        ({"example_id": [hexadecimal(5)], "wait": [1.0]}, "columns weight are missing or unknown"),
        ({"example_id": [hexadecimal(5)], "weight": [1.0], "x": [1]}, "columns x are missing or unknown"),
        ({"example_id": [hexadecimal(5)] * 2, "weight": [1.0, 2.0]}, "0000000000000005 has two weights at update 0"),
        (
            {"example_id": [hexadecimal(5)], "weight": [1.0], "first_update": [4], "last_update": [3]},
            "window 4 to 3 of example 0000000000000005 is none",
        ),
        ({"example_id": [hexadecimal(5)], "weight": ["heavy"]}, "weights file .*heavy"),
    ],
)
def test_a_mistaken_row_is_named(tmp_path, rows, message):
    with pytest.raises(MechError, match=message):
        read(tmp_path / "w.parquet", rows)


def test_a_file_that_is_missing_broken_or_changed_is_named(tmp_path):
    path = tmp_path / "w.parquet"
    with pytest.raises(MechError, match=r"weights file .*w\.parquet does not exist"):
        weights_sha256(str(path))
    path.write_bytes(b"no parquet")
    with pytest.raises(MechError, match=r"w\.parquet cannot be read"):
        read_weights(str(path), weights_sha256(str(path)), IDS)
    with pytest.raises(MechError, match="has changed since the experiment was read"):
        read_weights(str(path), "0" * 64, IDS)


def everywhere(weights):
    """The same weight at every update, as a file would give it."""
    rows = len(weights)
    return ExampleWeights(np.arange(rows), np.array(weights), np.zeros(rows, dtype=np.int64), np.full(rows, LAST))


@pytest.fixture
def weighted(make_trainer):
    """A trainer whose pool has weights between 0 and 2, one of them only in updates 2 to 4."""

    def make(optimizer):
        trainer = make_trainer(optimizer=OPTIMIZERS[optimizer])
        weights = torch.rand(len(trainer.pool), generator=torch.Generator().manual_seed(3), dtype=torch.float64) * 2
        weights[::5] = 0
        windows = everywhere(weights.numpy())
        windows.first[int(trainer.batch(3)[0])], windows.last[int(trainer.batch(3)[0])] = 2, 4
        trainer.example_weights = windows
        return trainer

    return make


def test_the_batch_loss_is_the_weighted_sum_over_the_batch_size(weighted):
    trainer = weighted("adamw, clip and decay")
    made = trainer.step(State.initial(trainer.flat.vector))
    trainer.flat.load(made.before.theta)
    losses = example_losses(trainer.flat.model, trainer.pool[made.examples])
    weights = trainer.example_weights.at(0, made.examples)
    assert made.loss == pytest.approx(float((weights * losses).sum().detach() / 4), rel=1e-14)
    assert (weights != 1).any()


def test_weights_of_the_data_and_of_a_perturbation_multiply(weighted):
    trainer = weighted("adamw, clip and decay")
    halved = with_weights(trainer, torch.full((len(trainer.pool),), 0.5, dtype=torch.float64))
    examples = trainer.batch(3)
    assert (halved.weights_at(3, examples) == trainer.weights_at(3, examples) / 2).all()
    assert (trainer.weights_at(3, examples) != trainer.weights_at(5, examples)).any()
    start = State.initial(trainer.flat.vector)
    reference = list(trainer.updates(start, 3))[-1].after.theta
    assert metasmoothness(trainer, start, 3, 0.01, reference).value > 0.9


def test_equal_weights_from_a_file_and_from_a_tensor_give_equal_states(make_trainer):
    one, other = make_trainer(), make_trainer()
    weights = torch.rand(len(one.pool), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    one.weights, other.example_weights = weights, everywhere(weights.numpy())
    for first, second in zip(train(one), train(other), strict=True):
        assert torch.equal(first.after.theta, second.after.theta)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_ledger_of_a_weighted_training_balances(weighted, tiny_probe, optimizer):
    trainer = weighted(optimizer)
    # As in test_ledger: small steps, so that Simpson's rule is not what is tested.
    trainer.optimizer = trainer.optimizer.model_copy(update={"learning_rate": trainer.optimizer.learning_rate / 20})
    accounts, changes = ledger(trainer, tiny_probe, [4, 9, 12])
    for account, change in zip(accounts, changes, strict=True):
        assert account.explained() == pytest.approx(change, abs=1e-6 * account.gross)
        assert account.update_error < 1e-6
        assert account.example_error < 1e-6


def test_an_example_of_weight_zero_contributes_nothing(weighted):
    trainer = weighted("adamw, clip and decay")
    state = State.initial(trainer.flat.vector)
    directions = torch.randn(2, len(trainer.flat.vector), generator=torch.Generator().manual_seed(1)).double()
    seen = 0
    for made in trainer.updates(state, 8):
        with Capture(trainer.flat.model) as capture:
            trainer.step(made.before)
        parts = Contraction(trainer.flat, components(trainer))(capture.factors(), directions)
        silent = trainer.example_weights.at(made.before.step, made.examples) == 0
        assert (parts[:, silent] == 0).all()
        assert (parts[:, ~silent].abs().sum(dim=2) > 0).all()
        seen += int(silent.sum())
    assert seen > 0


@pytest.mark.parametrize("optimizer", ["adamw, clip and decay", "sgd with momentum"])
def test_influence_of_a_weighted_training_equals_finite_differences(weighted, tiny_probe, optimizer):
    trainer = weighted(optimizer)
    start = initial_theta(trainer)
    scores = sweep(trainer, train(trainer), tiny_probe, "induction_copy_advantage")
    base = trainer.example_weights
    example = max(range(24), key=lambda e: abs(sum(v for (_, i), v in scores.items() if i == e)) * (base.weight[e] > 0))
    predicted = sum(v for (_, index), v in scores.items() if index == example)

    def retrained(delta):
        """The weight itself is moved by `delta`, in and outside its window."""
        weights = [ExampleWeights(base.example, base.weight.copy(), base.first, base.last)]
        weights[0].weight[example] += delta
        trainer.example_weights = weights[0]
        state = list(trainer.updates(State.initial(start), STEPS))[-1].after
        trainer.example_weights = base
        trainer.flat.load(state.theta)
        return float(MECHANISMS["induction_copy_advantage"].value(trainer.flat.model, tiny_probe).detach())

    assert base.last[example] == LAST, "moved at every update it was seen in"
    h = 1e-4  # as in test_influence: fourth-order difference, truncation far below the tolerance
    measured = (8 * (retrained(h) - retrained(-h)) - (retrained(2 * h) - retrained(-2 * h))) / (12 * h)
    assert predicted == pytest.approx(measured, rel=1e-5)
