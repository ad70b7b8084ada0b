"""Which states are kept: logarithmic and adaptive plans, zooms, and that a zoom changes no result."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mech_pipeline.errors import MechError
from mech_pipeline.formation.events import formation_step
from mech_pipeline.pipeline.analysis import analysis, formation
from mech_pipeline.pipeline.analysis import wanted as analysis_cells
from mech_pipeline.pipeline.grid import kept_steps, planned_steps, request_zoom
from mech_pipeline.pipeline.ledger import ledger
from mech_pipeline.pipeline.ledger import wanted as ledger_cells
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.pipeline.training import training
from mech_pipeline.pipeline.training.training import stretches_between
from mech_pipeline.spec.training import Checkpoints
from mech_pipeline.store.reading.query import query
from mech_pipeline.store.store import Store
from tests.support.once import filled_once
from tests.support.once import trained as trained_once
from tests.support.tiny import checkpoint_hashes, spec_of, train

MECHANISM = "induction_copy_advantage"


@pytest.fixture
def store(folder, local_store):
    """An empty store beside the text."""
    return local_store


def trained(store, **change):
    """A run with checkpoints and mechanism values."""
    return filled_once(store, spec_of(**change), with_values).spec


def with_values(store, spec):
    train(store, spec)
    analysis.analyse(OpenRun(store, spec), analysis_cells.OUTPUTS, kept_steps(store, spec))


def test_a_logarithmic_plan_has_the_powers_of_two_and_ends_where_the_linear_one_is_denser():
    assert Checkpoints(every=100, log=1).grid(250) == (0, 1, 2, 4, 8, 16, 32, 64, 100, 200, 250)
    assert {1, 2, 3, 4, 6, 8, 11} <= set(Checkpoints(every=100, log=2).grid(50))


@given(missing=st.sets(st.integers(0, 40), min_size=1), kept=st.sets(st.integers(0, 40)))
def test_stretches_fill_all_that_is_missing_once_and_end_at_what_can_be_compared(missing, kept):
    kept -= missing
    found = stretches_between(sorted(missing), sorted(kept))
    assert [step for stretch in found for step in stretch.missing] == sorted(missing)
    for stretch in found:
        assert stretch.start in kept or stretch.start == -1
        assert stretch.start < stretch.missing[0] <= stretch.missing[-1] <= stretch.until
        later = [step for step in kept if step > stretch.missing[-1]]
        assert stretch.until == (min(later) if later else stretch.missing[-1])
    updates = [step for stretch in found for step in range(stretch.start + 1, stretch.until + 1)]
    assert len(updates) == len(set(updates)), "nothing is trained twice"


def test_a_zoom_keeps_the_very_states_of_the_run(store):
    spec = trained(store, ledger={})
    asked = request_zoom(store, spec, 7, 11)
    saved = []
    training.train(store, spec, lambda checkpoint: saved.append(checkpoint.step))
    assert saved == asked == [7, 8, 9, 10, 11]
    everything = Store(store.root + "-dense")
    dense = spec_of(checkpoints={"every": 1}, ledger={})
    trained_once(everything, dense)
    truth = checkpoint_hashes(everything, spec.run)
    assert {step: truth[step] for step in kept_steps(store, spec)} == checkpoint_hashes(store, spec.run)
    assert training.train(store, spec) == 0, "it is there now"


def test_a_zoom_changes_no_result(store):
    spec = trained(store)
    formation.compute_formation(store, spec)
    ledger.compute_ledger(OpenRun(store, spec), spec.checkpoint_steps())
    request_zoom(store, spec, 7, 11)
    training.train(store, spec)
    run = OpenRun(store, spec)
    assert planned_steps(store, spec) == spec.checkpoint_steps()
    assert ledger_cells.pending(run, run.planned) == []
    waiting = analysis_cells.pending(run, analysis_cells.OUTPUTS, kept_steps(store, spec))
    assert {cell.step for cell in waiting["mechanism_values"]} == {7, 8, 9, 10, 11}
    assert waiting["gradients"] == [], "tensors are not kept at every step of a zoom"
    before = formation.wanted(store, spec)
    analysis.analyse(run, analysis_cells.OUTPUTS, kept_steps(store, spec))
    assert formation.wanted(store, spec) == before


def test_a_replay_that_differs_from_the_run_keeps_nothing(store, monkeypatch):
    spec = trained(store, ledger={})
    request_zoom(store, spec, 7, 8)
    before = checkpoint_hashes(store, spec.run)
    real = training.OpenRun.trainer.func

    def other_weights(run):
        trainer = real(run)
        trainer.weights = torch.full((len(trainer.pool),), 1.5)
        return trainer

    monkeypatch.setattr(training.OpenRun.trainer, "func", other_weights)
    with pytest.raises(MechError, match="does not reach checkpoint 12 bit for bit"):
        training.train(store, spec)
    assert checkpoint_hashes(store, spec.run) == before


def test_states_too_large_to_wait_are_compared_first_and_kept_then(store, monkeypatch):
    spec = trained(store, ledger={})
    request_zoom(store, spec, 7, 11)
    monkeypatch.setattr(training, "WAITING_BYTES", 1)
    assert training.train(store, spec) == 5
    everything = Store(store.root + "-dense")
    dense = spec_of(checkpoints={"every": 1}, ledger={})
    trained_once(everything, dense)
    truth = checkpoint_hashes(everything, spec.run)
    assert all(truth[step] == version for step, version in checkpoint_hashes(store, spec.run).items())


def test_a_window_outside_of_the_run_is_named(store):
    with pytest.raises(MechError, match="window 20:30 is not inside run tiny.baseline.s0, which has steps 0 to 24"):
        request_zoom(store, spec_of(), 20, 30)


def test_checkpoints_become_denser_exactly_where_the_mechanism_moved(store):
    coarse = {"every": 6}
    spec = trained(store, checkpoints=coarse, ledger={})
    rows = query(store.root, f"select step, value from mechanism_values where mechanism = '{MECHANISM}' order by 1")
    values = dict(rows.rows())
    moved = {begin: abs(values[begin + 6] - values[begin]) for begin in (0, 6, 12, 18)}
    change = sorted(moved.values())[-2]  # the two largest movements
    adaptive = {"mechanism": MECHANISM, "change": change, "every": 2}
    spec = spec_of(checkpoints=coarse | {"adaptive": adaptive}, ledger={})
    expected = {0, 6, 12, 18, 24} | {s + d for s, by in moved.items() if by >= change for d in (2, 4)}
    assert set(planned_steps(store, spec)) == expected
    assert len(expected) == 9
    training.train(store, spec)
    assert set(checkpoint_hashes(store, spec.run)) == expected
    analysis.analyse(OpenRun(store, spec), analysis_cells.OUTPUTS, kept_steps(store, spec))
    assert set(planned_steps(store, spec)) == expected, "what was added asks for no more"


def test_a_watched_mechanism_must_be_one_of_the_experiments():
    with pytest.raises(MechError, match="mechanism 'x' is not among the experiment's: induction_copy_advantage"):
        spec_of(checkpoints={"adaptive": {"mechanism": "x", "change": 0.1}})


def test_denser_evaluations_narrow_a_crossing_and_do_not_count_as_sustained():
    steps, values = [0, 10, 20, 30], [0.0, 0.0, 2.0, 0.0]
    flicker = {11: 2.0, 12: 2.0, 13: 2.0}
    assert formation_step(steps, values, 1.0, 2, flicker).censored
    found = formation_step(steps, [0.0, 0.0, 2.0, 2.0], 1.0, 2, {12: 2.0, 14: 0.5, 16: 1.5})
    assert (found.step, found.lower) == (16, 14)
    assert formation_step(steps, [0.0, 0.0, 2.0, 2.0], 1.0, 2).step == 20
