"""Arms in which a part of the model is held while it trains: bit-exact, branching, refused where nobody can account for it."""

import copy

import pytest
import torch

from mech_pipeline.errors import MechError
from mech_pipeline.mechanisms.anatomy import attention, output_of
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.resolve import resolve
from mech_pipeline.spec.experiment import parse_experiment
from mech_pipeline.store.reading.query import query
from mech_pipeline.store.store import Store
from tests.support import tiny
from tests.support.choosing import NAME, QUICK, assert_same_bits, compute, states

pytestmark = pytest.mark.usefixtures("folder")

FORBID = {"head": [0, 1], "do": "forbid_previous_token", "from": 4, "to": 8}
OURS = {"checkpoints": {"every": 3}, "influence": {}, "ledger": {}}


@pytest.fixture
def store(local_store):
    return local_store


def experiment_of(*intervene, arm=None, **change):
    content = copy.deepcopy(tiny.TINY) | QUICK | OURS | change
    content["arms"] = {"baseline": {}, "held": {"intervene": list(intervene)} | (arm or {})}
    return resolve(parse_experiment(content))


@pytest.mark.slow
def test_the_arm_branches_where_it_is_held_and_goes_another_way(store, tmp_path):
    experiment = experiment_of(FORBID)
    compute(store, experiment)
    taken = query(
        store.root, "select step, taken_from from checkpoints where run = 'tiny.held.s0' order by step"
    ).rows()
    assert taken == [(0, "tiny.baseline.s0"), (3, "tiny.baseline.s0"), (6, None), (9, None), (12, None)]
    arm, baseline = states(store, "tiny.held.s0"), states(store, "tiny.baseline.s0")
    assert arm[3][1] == baseline[3][1]
    assert arm[6][1] != baseline[6][1]
    alone = Store(tmp_path / "alone")
    content = (
        copy.deepcopy(tiny.TINY) | QUICK | OURS | {"experiment": "alone", "arms": {"held": {"intervene": [FORBID]}}}
    )
    compute(alone, resolve(parse_experiment(content)))
    assert_same_bits(arm, states(alone, "alone.held.s0"))
    assert compute(store, experiment) == []


@pytest.mark.slow
def test_a_stopped_run_goes_on_with_the_same_bits_from_inside_of_the_window(store):
    experiment = experiment_of(FORBID)
    compute(store, experiment)
    whole = states(store, "tiny.held.s0")
    store.delete("checkpoints", "run = 'tiny.held.s0' and step > 6")
    compute(store, experiment)
    assert_same_bits(states(store, "tiny.held.s0"), whole)


def test_evaluation_sees_the_model_as_it_is(store):
    experiment = experiment_of(FORBID | {"from": 0, "to": None})
    compute(store, experiment)
    run = OpenRun(store, experiment.runs()[1])
    run.trainer.flat.load(run.weights(12))
    pattern = output_of(
        run.trainer.flat.model, attention(run.trainer.flat.model, 0), run.trainer.tokens(torch.arange(2))
    )[1]
    assert (pattern.diagonal(-1, dim1=2, dim2=3)[:, 1] > 0).all()


@pytest.mark.slow
def test_another_window_trains_just_that_arm_again(store):
    compute(store, experiment_of(FORBID))
    again = compute(store, experiment_of(FORBID | {"to": 9}))
    assert {run for stage, run in again if stage == "training"} == {"tiny.held.s0"}


@pytest.mark.parametrize(
    ("intervene", "words"),
    [
        ({"head": [2, 0], "do": "zero_output"}, "intervene[0]: there is no layer 2; the model has layers 0 to 1"),
        ({"head": [0, 5], "do": "zero_output"}, "there is no head 5; a layer has heads 0 to 1"),
        ({"neuron": [0, 5], "do": "zero"}, "the model has no MLP and so no neurons"),
        ({"head": [0, 0], "do": "zero"}, "a neuron can be held at `zero`"),
        ({"head": [0, 0], "neuron": [0, 1], "do": "zero"}, "name one of `head` and `neuron`"),
        ({"head": [0, 0], "do": "zero_output", "from": 9, "to": 4}, "from 9 to 4 is no window"),
        ({"head": [0, 0], "do": "zero_output", "from": 12}, "12 is after the last of 12 updates"),
        ({"head": [0, 0], "do": "forget"}, "forbid_previous_token"),
    ],
)
def test_a_part_that_the_model_has_not_is_named_before_anything_is_trained(intervene, words):
    with pytest.raises(MechError) as caught:
        experiment_of(intervene)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ledger": {"mechanisms": [NAME], "arms": "all"}}, "take its arm out of `ledger.arms`"),
        ({"influence": {"mechanisms": [NAME], "arms": "all"}}, "take its arm out of `influence.arms`"),
        ({"in_training": {"mechanisms": [NAME], "arms": "all"}}, "take its arm out of `in_training.arms`"),
        ({"training": {"steps": 12, "batch": 8, "stacked": True}}, "training.stacked"),
        ({"training": {"steps": 12, "batch": 8, "compile": True}}, "training.compile"),
    ],
)
def test_what_cannot_account_for_it_is_refused_in_words(change, words):
    with pytest.raises(MechError) as caught:
        experiment_of(FORBID, **change)
    assert words in str(caught.value)
    assert "tiny.held.s0" in str(caught.value)
