"""Arms in which a part of the model is held while it trains: bit-exact, branching, refused where nobody can account for it."""

import copy

import numpy as np
import pytest
import torch

from mech_pipeline.errors import MechError
from mech_pipeline.mechanisms.anatomy import attention, output_of
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.resolve import resolve
from mech_pipeline.spec.experiment import parse_experiment
from mech_pipeline.spec.fingerprint import fingerprint
from mech_pipeline.spec.intervention import Intervention
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
        ({"head": [0, 0], "do": "zero"}, "`zero` is not for a head; what is: forbid_previous_token, zero_output"),
        ({"head": [0, 0], "do": "clamp", "value": 0.3}, "`clamp` is not for a head"),
        ({"neuron": [0, 5], "do": "mean_output"}, "`mean_output` is not for a neuron; what is: zero, mean, clamp"),
        ({"neuron": [0, 5], "do": "clamp"}, "`clamp` needs a `value`"),
        ({"neuron": [0, 5], "do": "zero", "value": 0.3}, "`zero` takes no value; `clamp` does"),
        ({"neuron": [0, 5], "do": "mean", "value": 0.0}, "`mean` takes no value; `clamp` does"),
        ({"neuron": [0, 5], "do": "clamp", "value": float("nan")}, "value"),
        ({"neuron": [0, 5], "do": "clamp", "value": float("-inf")}, "value"),
        ({"neuron": [0, 5], "do": "clamp", "value": 1e39}, "less than or equal to 1000000"),
        ({"neuron": [0, 5], "do": "clamp", "value": -2e6}, "greater than or equal to -1000000"),
        ({"neuron": [0, 5], "do": "clamp", "value": "much"}, "value"),
        ({"neuron": [0, 5], "do": "clamp", "value": 0.3}, "the model has no MLP and so no neurons"),
        ({"neuron": [5, 0], "do": "mean"}, "there is no layer 5"),
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


MLP = {"model": {"layers": 2, "heads": 2, "d_model": 16, "d_mlp": 32}}
CLAMP = {"neuron": [0, 5], "do": "clamp", "value": 0.25, "from": 4, "to": 8}


@pytest.mark.parametrize(
    ("one", "other"),
    [(CLAMP, CLAMP | {"value": 0.5}), (CLAMP, {"neuron": [0, 5], "do": "mean", "from": 8})],
)
def test_one_neuron_is_not_held_at_two_values_at_once(one, other):
    with pytest.raises(MechError, match=r"neuron \[0, 5\]: clamp at 0.25 in updates 4 to 8, and neuron \[0, 5\]"):
        experiment_of(one, other, **MLP)
    experiment_of(one, other | {"from": 9, "to": None}, **MLP)
    experiment_of(one, other | {"neuron": [0, 6]}, **MLP)


@pytest.mark.parametrize(
    ("arm", "training"),
    [
        ({}, {"micro_batches": 2}),
        ({"choose": {"by": "random", "share": 0.1, "of": "baseline"}}, {}),
    ],
)
def test_a_mean_over_the_batch_is_refused_where_examples_do_not_count_alike(arm, training):
    mean = {"head": [0, 1], "do": "mean_output"}
    change = {"training": QUICK["training"] | training}
    with pytest.raises(
        MechError, match=r"tiny.held.s0: head \[0, 1\]: mean_output in updates 0 to the last, and the mean"
    ):
        experiment_of(mean, arm=arm, **change)
    experiment_of(mean | {"do": "zero_output"}, arm=arm, **change)


def test_what_was_written_before_there_were_values_has_the_fingerprint_that_it_had():
    zero = Intervention(neuron=(1, 5), do="zero", begin=3)
    assert fingerprint(zero) == fingerprint({"head": None, "neuron": [1, 5], "do": "zero", "begin": 3, "to": None})
    clamp = Intervention(neuron=(1, 5), do="clamp", begin=3, value=0.25)
    written = {"head": None, "neuron": [1, 5], "do": "clamp", "begin": 3, "to": None, "value": 0.25}
    assert fingerprint(clamp) == fingerprint(written)


@pytest.mark.slow
def test_a_clamped_neuron_stays_what_it_was_and_the_model_trains_otherwise(store):
    """Without weight decay, what no gradient reaches does not move; and a kill inside of the window changes no bit."""
    still = {"optimizer": {"warmup_steps": 5, "weight_decay": 0.0}, **MLP}
    experiment = experiment_of(CLAMP | {"from": 0, "to": None}, **still)
    compute(store, experiment)
    arm, baseline = states(store, "tiny.held.s0"), states(store, "tiny.baseline.s0")
    key = "layers.0.mlp.fc_in.weight"
    name = next(each for each in arm[12][0] if each.endswith(key) and "exp_avg" not in each)
    assert np.array_equal(arm[12][0][name][5], arm[0][0][name][5])
    assert not np.array_equal(arm[12][0][name][4], arm[0][0][name][4])
    assert not np.array_equal(baseline[12][0][name][5], baseline[0][0][name][5])
    store.delete("checkpoints", "run = 'tiny.held.s0' and step > 6")
    compute(store, experiment)
    assert_same_bits(states(store, "tiny.held.s0"), arm)
    again = compute(store, experiment_of(CLAMP | {"from": 0, "to": None, "value": 0.5}, **still))
    assert {run for stage, run in again if stage == "training"} == {"tiny.held.s0"}, "another value is another training"


@pytest.mark.slow
def test_parts_at_their_means_branch_and_resume_bit_for_bit(store):
    means = [{"head": [0, 1], "do": "mean_output", "from": 4, "to": 8}, {"neuron": [1, 3], "do": "mean", "from": 6}]
    experiment = experiment_of(*means, **MLP)
    compute(store, experiment)
    arm, baseline = states(store, "tiny.held.s0"), states(store, "tiny.baseline.s0")
    assert arm[3][1] == baseline[3][1]
    assert arm[6][1] != baseline[6][1]
    store.delete("checkpoints", "run = 'tiny.held.s0' and step > 3")
    compute(store, experiment)
    assert_same_bits(states(store, "tiny.held.s0"), arm)
    assert compute(store, experiment) == []


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
