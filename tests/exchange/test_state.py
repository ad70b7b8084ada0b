"""`mech state`: any step's state by replay is the state that training had."""

import json

import pytest
import torch
from safetensors.torch import load_file

from mech_pipeline.errors import MechError
from mech_pipeline.exchange.state import state_at, write_state
from mech_pipeline.pipeline.needs import Need
from mech_pipeline.training.checkpoints import state_sha256
from tests.support import tiny
from tests.support.command_line import mech
from tests.support.once import trained

pytestmark = pytest.mark.usefixtures("folder")


@pytest.fixture
def run(local_store):
    return trained(local_store, tiny.spec_of())


@pytest.mark.parametrize("step", [3, 12, 24])
def test_a_replayed_state_is_the_checkpoint_bit_for_bit(run, step):
    state, described = state_at(run, step, replay=True)
    assert described.replayed_from < step
    assert described.sha256 == state_sha256(state) == run.checkpoints[step].data_version


def test_a_state_between_checkpoints_is_that_of_training(run):
    (made,) = [each.after for each in run.trainer.updates(run.state(6), 10) if each.after.step == 10]
    state, described = state_at(run, 10, check=True)
    assert torch.equal(state.theta, made.theta)
    assert torch.equal(state.v, made.v)
    assert (described.replayed_from, described.checked_at) == (6, 12)


def test_what_is_kept_is_read(run):
    _, described = state_at(run, 12)
    assert (described.replayed_from, described.checked_at) == (12, None)


def test_a_replay_that_is_not_the_training_is_refused(run):
    run.trainer.training = run.spec.training.model_copy(update={"micro_batches": 4})
    with pytest.raises(MechError, match="does not reach checkpoint 12 bit for bit"):
        state_at(run, 10, check=True)


@pytest.mark.parametrize("step", [-1, 25])
def test_steps_outside_of_the_run_are_named(run, step):
    with pytest.raises(MechError, match="steps 0 to 24 can be had"):
        state_at(run, step)


def test_weights_alone_are_no_state(run):
    run.__dict__["brings"] = run.brings - {Need.MOMENTS}
    with pytest.raises(MechError, match="hold weights alone"):
        state_at(run, 12)


def test_the_file_holds_weights_and_moments_under_their_names(run, tmp_path):
    path, beside = write_state(run, *state_at(run, 10), tmp_path / "states")
    tensors = load_file(path)
    assert {name.split(".")[0] for name in tensors} == {"model", "exp_avg", "exp_avg_sq"}
    assert len(tensors) == 3 * len(run.trainer.flat.slots)
    said = json.loads(beside.read_text())
    assert (said["run"], said["step"], said["replayed_from"]) == ("tiny.baseline.s0", 10, 6)


@pytest.mark.process
def test_the_command_writes_a_file_and_what_it_is(run, tmp_path):
    said = mech(tmp_path, "state", "tiny.baseline.s0", "10", "--folder", "states", "--check").stdout
    assert "checkpoint 12 with the same bits" in said
    assert (tmp_path / "states" / "tiny.baseline.s0.step00000010.safetensors").is_file()
    failed = mech(tmp_path, "state", "tiny.baseline.s0", "99", check=False)
    assert failed.returncode == 1
    assert "has no step 99" in failed.stderr
