"""The stage `signals`: one row per signal and planned checkpoint, made again only where something changed."""

import pytest

from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.pipeline.signals import values, wanted
from mech_pipeline.pipeline.stage import View
from mech_pipeline.pipeline.stages import stage_of
from mech_pipeline.signals.registry import signal_versions
from mech_pipeline.store.reading.query import query
from tests.support import tiny

NAMES = ("elapsed_step", "parameter_norm", "loss_slope")


@pytest.fixture
def view(local_store, tmp_path, monkeypatch):
    tiny.write_text(tmp_path)
    monkeypatch.chdir(tmp_path)
    spec = tiny.spec_of(signals={"measure": list(NAMES)})
    tiny.prepare(local_store, spec)
    tiny.train(local_store, spec)
    return View(local_store, (spec,))


def test_every_planned_checkpoint_has_every_signal(view):
    stage, steps = stage_of("signals"), view.spec.checkpoint_steps()
    assert stage.work(view, steps) == len(NAMES) * len(steps)
    rows = query(view.store.root, "select signal, step, value from signal_values order by all").rows()
    assert {(signal, step) for signal, step, _ in rows} == {(name, step) for name in NAMES for step in steps}
    found = {(signal, step): value for signal, step, value in rows}
    assert all(found["elapsed_step", step] == step for step in steps)
    run = OpenRun(view.store, view.spec)
    assert found["parameter_norm", 6] == pytest.approx(float(run.weights(6).norm()), rel=1e-6)
    assert found["loss_slope", 0] is None  # it abstains
    assert found["loss_slope", 3] is not None
    assert stage.waiting(View(view.store, view.specs)) == {}


def test_a_raised_version_makes_just_that_signal_again(view, monkeypatch):
    stage, steps = stage_of("signals"), view.spec.checkpoint_steps()
    stage.work(view, steps)
    monkeypatch.setattr(wanted, "signal_versions", lambda: {**signal_versions(), "parameter_norm": "another"})
    late = stage.waiting(View(view.store, view.specs))
    assert {cell.item for cell in late} == {"parameter_norm"}
    assert len(late) == len(steps)


def test_the_sample_is_the_same_at_every_checkpoint_and_for_every_seed(view):
    one, two = (values.sample_of(OpenRun(view.store, view.spec)) for _ in range(2))
    assert one.equal(two)
    pool = view.opened.tokens.pool[:]
    rows = {tuple(row) for row in pool.tolist()}
    assert all(tuple(row) in rows for row in one.tolist())
    assert len(one) == min(len(pool), values.SAMPLE)


def test_who_asks_for_no_signals_has_none(local_store, tmp_path, monkeypatch):
    assert tiny.spec_of().signals == ()
    assert not stage_of("signals").is_asked(View(local_store, (tiny.spec_of(),)))
