"""Arms that show examples earlier, first, last, or others in their places: made from the choice, replayed, accounted for."""

import numpy as np
import pytest

from mech_pipeline.errors import MechError
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.store.reading.query import query
from tests.support.choosing import NAME, compute, experiment_of

pytestmark = pytest.mark.usefixtures("folder")

SOME = {"by": "loss", "share": 0.2, "at": 12}
PLAN = {"checkpoints": {"every": 3}}
ACCOUNT = {"ledger": {"mechanisms": [NAME], "arms": "all"}}


@pytest.fixture
def store(local_store):
    return local_store


def order_of(run):
    return np.stack([run.trainer.batch(update).numpy() for update in range(12)])


def chosen_places(store, run):
    ids = query(store.root, f"select example_id from choices where run = '{run.spec.run}'")["example_id"]
    return np.flatnonzero(np.isin(run.tokens.example_ids, ids.to_list()))


@pytest.mark.slow
def test_first_last_and_earlier_are_the_order_that_training_sees_and_its_ledger_balances(store):
    arms = {
        "first": SOME | {"do": "reorder", "to": "first"},
        "last": SOME | {"do": "reorder", "to": "last", "window": [6, 11]},
        "sooner": SOME | {"do": "advance", "earlier": 2},
    }
    experiment = experiment_of(arms, **PLAN, **ACCOUNT)
    compute(store, experiment)
    baseline, first, last, sooner = (OpenRun(store, spec) for spec in experiment.runs())
    chosen = chosen_places(store, first)
    plain = order_of(baseline)
    count = int(np.isin(plain, chosen).sum())
    assert np.isin(order_of(first).reshape(-1)[:count], chosen).all()
    assert np.array_equal(order_of(last)[:6], plain[:6])
    assert np.isin(order_of(last).reshape(-1)[::-1][: np.isin(plain[6:], chosen).sum()], chosen).all()
    assert np.flatnonzero(np.isin(order_of(sooner), chosen)).mean() < np.flatnonzero(np.isin(plain, chosen)).mean()
    for run in (first, last, sooner):
        assert np.array_equal(np.sort(order_of(run), axis=None), np.sort(plain, axis=None))
        stored = query(
            store.root,
            f"select example_id from batches where run = '{run.spec.run}' order by update_step, position",
        )["example_id"]
        assert stored.to_list() == run.tokens.example_ids[order_of(run).reshape(-1)].tolist()
        assert run.replay(0, 6)[-1].after.step == 6  # raises unless it is the kept state, bit for bit
    balance = query(store.root, "select run, change, explained, gross, update_error from ledger_balance")
    assert set(balance["run"]) == {spec.run for spec in experiment.runs()}
    assert (np.abs(balance["change"] - balance["explained"]) <= 1e-3 * balance["gross"]).all(), balance
    assert (balance["update_error"] < 1e-4).all(), balance
    taken = query(store.root, "select step from checkpoints where taken_from is not null and run = 'tiny.last.s0'")
    assert max(taken["step"]) == 6
    assert compute(store, experiment) == []


@pytest.mark.slow
def test_replaced_examples_are_never_seen_and_others_like_them_are(store):
    alike = {"do": "replace", "alike": ["kind", "loss"]}
    experiment = experiment_of({"other": SOME | alike, "control": {"like": "other"}}, **PLAN, **ACCOUNT)
    compute(store, experiment)
    baseline, other, control = (OpenRun(store, spec) for spec in experiment.runs())
    for run in (other, control):
        rows = query(store.root, f"select example_id, replaced_by from choices where run = '{run.spec.run}'")
        names = dict(rows.iter_rows())
        kinds = dict(query(store.root, "select example_id, kind from examples").rows())
        assert all(kinds[one] == kinds[instead] for one, instead in names.items())
        assert not set(names) & set(names.values())
        ids = baseline.tokens.example_ids
        expected = [names.get(str(name), str(name)) for name in ids[order_of(baseline).reshape(-1)]]
        assert ids[order_of(run).reshape(-1)].tolist() == expected
    assert query(store.root, "select count(*) from choice_balance where run = 'tiny.other.s0'").item() == 1
    first = set(query(store.root, "select example_id from choices where run = 'tiny.other.s0'")["example_id"])
    second = query(store.root, "select example_id, replaced_by from choices where run = 'tiny.control.s0'")
    assert not first & {*second["example_id"], *second["replaced_by"]}


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        (SOME | {"do": "advance"}, "`do: advance` and `earlier` go together"),
        (SOME | {"do": "reorder"}, "`do: reorder` and `to` go together"),
        (SOME | {"do": "delete", "to": "last"}, "`do: reorder` and `to` go together"),
        (SOME | {"do": "reorder", "to": "last", "window": "after_target"}, "needs a window that ends"),
        (SOME | {"do": "replace", "window": [1, 3], "outside": True}, "leave `outside` out"),
        (SOME | {"do": "replace", "share": 0.6}, "38 examples and as many like them are more than the pool of 64"),
        (SOME | {"share": 0.001}, "share: 0.001 of at most 64 examples is none"),
    ],
)
def test_mistakes_are_named_before_anything_is_trained(choice, words):
    with pytest.raises(MechError) as caught:
        experiment_of({"a": choice})
    assert words in str(caught.value)
