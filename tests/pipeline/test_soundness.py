"""Checks of a trained run: a sound one passes, and each check fails on the fault it is there for."""

import dataclasses
from itertools import pairwise

import pytest
import torch
from deltalake import write_deltalake

from mech_pipeline.pipeline import soundness
from mech_pipeline.pipeline.analysis import analysis
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.store.delta import latest_version, table_version
from mech_pipeline.store.reading.query import query
from tests.support.models import ARCHITECTURES, components
from tests.support.once import trained
from tests.support.tiny import spec_of

RUN = "tiny.baseline.s0"


@pytest.fixture
def run(folder, local_store):
    """A trained run of the tiny experiment."""
    return trained(local_store, spec_of())


def append(store, table, column, value):
    """A row as another program might write it: the store itself refuses such values."""
    rows = query(store.root, f"select * from {table} limit 1")
    changed = rows.with_columns(**{column: value}).to_arrow().cast(query_schema(store, table))
    options = store.files.delta_options
    write_deltalake(store.files.url(f"tables/{table}"), changed, mode="append", storage_options=options)


def query_schema(store, table):
    """Columns as the table has them; polars reads strings as large ones."""
    return table_version(store.files, table, latest_version(store.files, table)).schema


def test_a_sound_run_passes(run):
    assert soundness.not_finite(run) == soundness.NotFinite((), (), read=min(soundness.STATES, len(run.checkpoints)))
    assert soundness.resume(run).same
    assert soundness.batch_dependence(run) <= soundness.BATCH_TOLERANCE


def test_the_shortest_stretch_is_trained_again_the_last_of_equals(run):
    windows = list(pairwise(sorted(run.checkpoints)))
    shortest = min(end - begin for begin, end in windows)
    expected = [window for window in windows if window[1] - window[0] == shortest][-1]
    found = soundness.resume(run)
    assert (found.begin, found.end) == expected


def test_one_state_alone_cannot_be_resumed_from(run):
    run.checkpoints = {0: run.checkpoints[0]}
    assert soundness.resume(run) is None


@pytest.mark.parametrize("where", ["theta", "m", "v"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_state_with_one_wrong_number_is_named(run, monkeypatch, where, value):
    last, whole = max(run.checkpoints), OpenRun.state

    def damaged(self, step):
        state = whole(self, step)
        if step != last:
            return state
        vector = getattr(state, where).clone()
        vector[-1] = value
        return dataclasses.replace(state, **{where: vector})

    monkeypatch.setattr(OpenRun, "state", damaged)
    assert soundness.not_finite(run).states == (last,)


def test_an_update_without_a_loss_is_named(run):
    append(run.store, "training_metrics", "value", float("nan"))
    assert len(soundness.not_finite(run).updates) == 1


def test_another_batch_order_is_not_a_resume(run):
    order = run.trainer.batch
    run.trainer.batch = lambda step: order(step).flip(0) if step % 2 else order(step + 1)
    found = soundness.resume(run)
    assert not found.same
    assert found.kept == run.checkpoints[found.end].data_version


def test_one_bit_of_a_weight_is_not_a_resume(run, monkeypatch):
    whole = OpenRun.state

    def nudged(self, step):
        state = whole(self, step)
        theta = state.theta.clone()
        theta[0] = torch.nextafter(theta[0], torch.tensor(9.0))
        return dataclasses.replace(state, theta=theta)

    monkeypatch.setattr(OpenRun, "state", nudged)
    assert not soundness.resume(run).same


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_no_architecture_lets_an_example_lean_on_its_batch(make_trainer, architecture):
    trainer = make_trainer(ARCHITECTURES[architecture], dtype=torch.float32)
    assert soundness.dependence(trainer.flat, components(trainer), trainer.pool[:6]) <= soundness.BATCH_TOLERANCE


def test_a_model_that_mixes_examples_is_noticed(make_trainer):
    """As batch normalisation would, or an attention kernel that takes several examples for one."""
    trainer = make_trainer(dtype=torch.float32)
    layer = next(m for m in trainer.flat.model.modules() if isinstance(m, torch.nn.Embedding))
    hook = layer.register_forward_hook(lambda _module, _inputs, out: out + 1e-2 * out.mean(0, keepdim=True))
    try:
        found = soundness.dependence(trainer.flat, components(trainer), trainer.pool[:6])
    finally:
        hook.remove()
    assert found > 10 * soundness.BATCH_TOLERANCE


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_stored_numbers_that_are_none_are_named_by_run_and_step(run, value):
    analysis.analyse(run, ["mechanism_values", "head_scores"], sorted(run.checkpoints))
    for table in ("mechanism_values", "head_scores"):
        assert soundness.cells_not_finite(run.store, table) == []
        append(run.store, table, "value", value)
        ((name, step),) = soundness.cells_not_finite(run.store, table, RUN)
        assert name == RUN
        assert step in run.checkpoints
        assert soundness.cells_not_finite(run.store, table, "another") == []
