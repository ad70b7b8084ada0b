"""Stages over a real store: resume and replay bit for bit, only what changed, and faults that are named."""

import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from deltalake import DeltaTable

from mech_pipeline.data.corpora import corpus_sha256, read_corpus
from mech_pipeline.errors import MechError
from mech_pipeline.mechanisms.registry import DETECTORS, MECHANISMS
from mech_pipeline.pipeline import plan
from mech_pipeline.pipeline.analysis import analysis, formation
from mech_pipeline.pipeline.analysis import wanted as analysis_cells
from mech_pipeline.pipeline.influence import influence
from mech_pipeline.pipeline.ledger import balance as ledger_balance
from mech_pipeline.pipeline.ledger import ledger
from mech_pipeline.pipeline.ledger import wanted as ledger_cells
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.pipeline.stages import makers
from mech_pipeline.pipeline.tokens import tokens
from mech_pipeline.pipeline.training import training
from mech_pipeline.pipeline.training import wanted as training_cells
from mech_pipeline.pipeline.training.batches import write_batches
from mech_pipeline.store.care.repair import repair_store
from mech_pipeline.store.care.verify import verify_store
from mech_pipeline.store.reading.query import query
from mech_pipeline.store.store import Store
from mech_pipeline.training.checkpoints import state_sha256
from mech_pipeline.training.update.optimizer import State
from tests.support.forked import training_in_a_process
from tests.support.once import filled_once, trained
from tests.support.tiny import TINY, checkpoint_hashes, prepare, spec_of, train


def fill(store, spec):
    """Everything up to formation."""
    train(store, spec)
    write_batches(store, spec)
    analysis.analyse(OpenRun(store, spec), analysis_cells.OUTPUTS, spec.checkpoint_steps())
    formation.compute_formation(store, spec)


@pytest.fixture
def store(folder, local_store):
    """An empty store beside the text."""
    return local_store


@pytest.mark.process
@pytest.mark.slow
def test_a_run_killed_at_any_moment_resumes_bit_for_bit(store, folder):
    spec = spec_of(training={"steps": 500, "batch": 8}, checkpoints={"every": 20})
    prepare(store, spec)
    kills, acknowledged = 0, set()
    for attempt in range(4):
        with training_in_a_process(store, spec) as (process, told):
            acknowledged.add(told())
            time.sleep(0.07 * attempt)
            process.kill()
            process.join()
            while (step := told()) is not None:
                acknowledged.add(step)
        kills += process.exitcode == -signal.SIGKILL
        assert acknowledged <= set(checkpoint_hashes(store, spec.run))
    assert kills == 4
    assert training.train(store, spec) > 0, "something was left to do"
    whole = Store(folder / "uninterrupted")
    prepare(whole, spec)
    training.train(whole, spec)
    assert checkpoint_hashes(store, spec.run) == checkpoint_hashes(whole, spec.run)
    metrics = "select step, metric, value from training_metrics order by all"
    assert query(store.root, metrics).rows() == query(whole.root, metrics).rows()
    assert len(query(store.root, metrics).rows()) == 500 * 4


def test_longer_runs_and_denser_plans_continue_from_what_is_kept(store):
    spec = spec_of()
    trained(store, spec)
    before = checkpoint_hashes(store, spec.run)
    longer = spec_of(training={"steps": 30, "batch": 8}, checkpoints={"every": 5})
    saved = []
    training.train(store, longer, lambda checkpoint: saved.append(checkpoint.step))
    assert saved == [5, 10, 15, 20, 25, 30]
    after = checkpoint_hashes(store, spec.run)
    assert {step: after[step] for step in before} == before
    assert training.train(store, longer) == 0


def test_every_replayed_window_ends_in_the_next_checkpoint(store):
    spec = spec_of()
    run = trained(store, spec)
    assert [end for _, end in run.windows(24)] == [3, 6, 12, 18, 24]
    for begin, end in run.windows(24):
        updates = run.replay(begin, end)
        assert [u.before.step for u in updates] == list(range(begin, end))
        assert state_sha256(updates[-1].after) == run.checkpoints[end].data_version
    wrong = State(24, *(v + 1 for v in (run.state(24).theta, run.state(24).m, run.state(24).v)))
    with pytest.raises(MechError, match="does not reach checkpoint 24 bit for bit"):
        run.verify(wrong)


def test_seeds_share_data_and_differ_in_everything_else(store):
    first, second = spec_of(0), spec_of(1)
    for spec in (first, second):
        prepare(store, spec)
    one, two = OpenRun(store, first), OpenRun(store, second)
    assert (one.tokens.pool[:] == two.tokens.pool[:]).all()
    assert (one.trainer.flat.vector != two.trainer.flat.vector).any()
    assert (one.trainer.batch(0) != two.trainer.batch(0)).any()


def test_control_arm_has_no_tiled_examples_but_the_same_probe(store):
    baseline, control = spec_of(0), spec_of(2)
    for spec in (baseline, control):
        prepare(store, spec)
    one, two = OpenRun(store, baseline), OpenRun(store, control)
    assert one.artifacts["probe"] == two.artifacts["probe"]
    assert one.artifacts["tokenizer"] == two.artifacts["tokenizer"]
    kinds = dict(query(store.root, "select example_id, kind from examples").rows())
    assert {kinds[name] for name in two.tokens.example_ids} == {"plain"}
    assert sum(kinds[name] == "tiled" for name in one.tokens.example_ids) == 48


def test_examples_table_points_at_the_source(store, folder):
    prepare(store, spec_of())
    rows = query(store.root, 'select document, "offset", line, kind, text, repeat_at, period from examples').rows()
    assert len(rows) >= 64
    for document, offset, line, kind, text, repeat_at, period in rows:
        content = (folder / document).read_bytes()
        snippet = text[:repeat_at] if kind == "tiled" else text
        assert content[offset:].decode().startswith(snippet)
        assert line == content[:offset].count(b"\n") + 1
        assert (period > 0) == (kind == "tiled")


@pytest.mark.slow
def test_touching_nothing_leaves_nothing_to_do(store):
    spec = spec_of()
    run = filled_once(store, spec, fill)
    ledger.compute_ledger(run, spec.checkpoint_steps())
    sha = corpus_sha256(read_corpus(spec.corpus))
    assert plan.ready_stages(store, spec, sha) == {}
    assert analysis.analyse(run, analysis_cells.OUTPUTS, spec.checkpoint_steps()) == 0
    assert ledger.compute_ledger(run, spec.checkpoint_steps()) == 0
    assert formation.compute_formation(store, spec) == 0
    assert tokens.prepare_tokens(store, spec, read_corpus(spec.corpus)) == 0


def test_changing_a_threshold_touches_formation_only(store):
    filled_once(store, spec_of(), fill)
    before = table_versions(store)
    changed = spec_of(
        formation=[{"mechanism": "induction_copy_advantage", "threshold": 8.0, "sustain": 2}, TINY["formation"][1]]
    )
    run = OpenRun(store, changed)
    assert not any(analysis_cells.pending(run, analysis_cells.OUTPUTS, changed.checkpoint_steps()).values())
    assert training_cells.missing_checkpoints(store, changed) == []
    assert formation.compute_formation(store, changed) == 1
    after = table_versions(store)
    assert {name for name in after if after[name] != before[name]} == {"formation"}


def table_versions(store):
    return {path.name: DeltaTable(str(path)).version() for path in Path(store.root, "tables").iterdir()}


def test_raising_a_detectors_version_recomputes_that_detector_only(store, monkeypatch):
    spec = spec_of()
    run = filled_once(store, spec, fill)
    monkeypatch.setitem(DETECTORS, "prefix_matching", replace(DETECTORS["prefix_matching"], version="2"))
    pending = analysis_cells.pending(run, analysis_cells.OUTPUTS, spec.checkpoint_steps())
    assert {cell.item for cell in pending["head_scores"]} == {"prefix_matching"}
    assert len(pending["head_scores"]) == len(spec.checkpoint_steps())
    assert not pending["mechanism_values"]
    assert not pending["gradients"]
    others = "select * from head_scores where detector <> 'prefix_matching' order by all"
    before = query(store.root, others).rows()
    assert analysis.analyse(run, analysis_cells.OUTPUTS, spec.checkpoint_steps()) == len(pending["head_scores"])
    assert query(store.root, others).rows() == before
    # the scores did not change, so formation, which reads them, has nothing to do (early cut-off)
    assert formation.compute_formation(store, spec) == 0


def test_raising_a_mechanisms_version_recomputes_what_is_made_of_it(store, monkeypatch):
    spec = spec_of()
    run = filled_once(store, spec, fill)
    ledger.compute_ledger(run, spec.checkpoint_steps())
    name = "induction_copy_advantage"
    monkeypatch.setitem(MECHANISMS.loaded(), name, replace(MECHANISMS[name], version="2"))
    pending = analysis_cells.pending(run, analysis_cells.OUTPUTS, spec.checkpoint_steps())
    assert {cell.item for cell in pending["mechanism_values"]} == {name}
    assert {cell.item for cell in pending["gradients"]} == {name}
    assert not pending["head_scores"]
    assert len(ledger_cells.pending(run, spec.checkpoint_steps())) == 5


@pytest.mark.slow
def test_stored_ledger_sums_to_the_change_of_stored_values(store):
    """In SQL, as a reader would check it: every window, and the run."""
    spec = spec_of()
    run = filled_once(store, spec, fill)
    assert ledger.compute_ledger(run, spec.checkpoint_steps()) == 5
    rows = query(
        store.root,
        """
        with change as (select step, value - lag(value) over (order by step) as change from mechanism_values
            where mechanism = 'induction_copy_advantage')
        select step, sum(l.value), any_value(c.change) from ledger l join change c using (step) group by step order by step
    """,
    ).rows()
    assert [row[0] for row in rows] == [3, 6, 12, 18, 24]
    for _, explained, change in rows:
        assert explained == pytest.approx(change, abs=3e-6), "stored values are float32 evaluations of some nats"
    by_term = dict(query(store.root, "select term, sum(value) from ledger group by 1").rows())
    later = query(store.root, "select sum(value_later) from ledger").rows()[0][0]
    assert later == pytest.approx(by_term["momentum"], rel=1e-4, abs=1e-8)
    # part of the run at a time gives the same account
    other = Store(Path(store.root).parent / "other")
    filled_once(other, spec, fill)
    for step in (18, 3, 24, 12, 6):
        ledger.compute_ledger(OpenRun(other, spec), [step])
    columns = "step, update_step, term, example_id, component"
    sql = f"select {columns}, value, value_later from ledger order by {columns}"
    for one, two in zip(query(store.root, sql).rows(), query(other.root, sql).rows(), strict=True):
        assert one[:5] == two[:5]
        assert one[5:] == pytest.approx(two[5:], rel=1e-5, abs=1e-9)


@pytest.mark.parametrize(
    "change",
    [
        {"model": {"layers": 1, "heads": 2, "d_model": 16, "d_mlp": 24, "normalization": "layer_norm"}},
        {"model": {"layers": 2, "heads": 4, "d_model": 16, "positions": "rotary", "normalization": "rms_norm"}},
        {"optimizer": {"kind": "sgd", "learning_rate": 0.3, "warmup_steps": 0}},
        {"optimizer": {"learning_rate": 0.05, "warmup_steps": 0}},
        {"data": {"context": 16, "examples": 10, "tile_tokens": [4, 8], "held_out": 0.2}},
        {"model": {"family": "gpt2", "layers": 2, "heads": 2, "d_model": 16}},
        {"model": {"family": "gpt_neox", "layers": 2, "heads": 2, "d_model": 16}},
        {"model": {"family": "llama", "layers": 2, "heads": 4, "kv_heads": 2, "d_model": 16}},
        {
            "optimizer": {"kind": "adam", "schedule": "wsd", "warmup_steps": 2, "decay_steps": 6},
            "training": {"steps": 24, "batch": 8, "micro_batches": 4},
        },
    ],
    ids=[
        *("mlp and layer norm", "rotary and rms norm", "sgd", "violent steps", "examples repeat within a batch"),
        *("gpt2", "gpt_neox", "llama with shared keys", "adam, WSD and micro-batches"),
    ],
)
@pytest.mark.slow
def test_other_models_optimizers_and_data_balance_too(store, change):
    spec = spec_of(**change)
    run = filled_once(store, spec, fill)
    assert ledger.compute_ledger(run, spec.checkpoint_steps()) == 5
    assert influence.compute_influence(run, [6]) == 1
    assert query(store.root, "select count(*) > 0 from influence").rows() == [(True,)]


@pytest.mark.slow
def test_a_ledger_that_does_not_balance_is_not_stored(store, monkeypatch):
    spec = spec_of()
    filled_once(store, spec, fill)
    name = "induction_copy_advantage"
    honest = MECHANISMS[name]
    lying = replace(
        honest,
        readout=lambda model, data: (
            honest.readout(model, data) * (1 if next(model.parameters()).dtype.itemsize == 8 else 1.01)
        ),
    )
    monkeypatch.setitem(MECHANISMS.loaded(), name, lying)
    seen = []
    with pytest.raises(ledger_balance.LedgerImbalance, match="fails ledger_sums_to_change"):
        ledger.compute_ledger(OpenRun(store, spec), spec.checkpoint_steps(), on_balance=seen.extend)
    assert seen, "the failing check is reported"
    assert query(store.root, "select count(*) from ledger").rows() == [(0,)]


def test_influence_is_stored_with_its_reliability_and_found_again(store):
    spec = spec_of()
    run = filled_once(store, spec, fill)
    assert influence.compute_influence(run, [12]) == 1
    assert influence.compute_influence(run, [12]) == 0
    rows = query(
        store.root, "select count(*), min(update_step), max(update_step) from influence where step = 12"
    ).rows()
    assert rows == [(12 * 8, 0, 11)]
    metrics = dict(query(store.root, "select metric, value from reliability where update_step = -1").rows())
    assert set(metrics) == {
        *("metasmoothness", "metasmoothness_since", "adjoint_growth", "horizon_step", "influence_sum", "reliable"),
        *("value_at_0", "value_at_h", "value_at_2h"),
    }
    true = query(
        store.root, "select value from mechanism_values where step = 12 and mechanism = 'induction_copy_advantage'"
    )
    assert metrics["value_at_0"] == pytest.approx(true.item(), abs=1e-5), "float32, in another order of sums"
    assert -1 <= metrics["metasmoothness"] <= 1
    with pytest.raises(MechError, match="no example has been seen yet"):
        influence.compute_influence(run, [0])
    with pytest.raises(MechError, match="checkpoint 7 of run tiny.baseline.s0 does not exist"):
        influence.compute_influence(run, [7])


def test_a_corrupt_checkpoint_is_named_and_can_be_made_again(store):
    spec = spec_of()
    trained(store, spec)
    before = checkpoint_hashes(store, spec.run)
    path = Path(store.root) / query(store.root, "select uri from checkpoints where step = 12").rows()[0][0]
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.chmod(0o644)
    path.write_bytes(bytes(content))
    with pytest.raises(
        MechError,
        match=r"checkpoint 12 of run tiny\.baseline\.s0 is corrupt: .* → `mech verify --repair`, then `mech run`",
    ):
        OpenRun(store, spec).state(12)
    done = repair_store(store.files, verify_store(store.files), makers=makers())
    assert done.lost == ["training_run: run tiny.baseline.s0, step 12"]
    assert training_cells.missing_checkpoints(store, spec) == [12]
    training.train(store, spec)
    assert checkpoint_hashes(store, spec.run) == before
    OpenRun(store, spec).state(12)


def test_a_checkpoint_of_another_model_is_named(store):
    spec = spec_of()
    run = trained(store, spec)
    other = OpenRun(store, spec_of(model={"layers": 2, "heads": 2, "d_model": 32}))
    other._blobs = run._blobs
    with pytest.raises(MechError, match=r"does not fit the model: model\.tok_embed\.weight is of shape \(280, 16\)"):
        other.state(12)


def test_two_trainers_of_one_run_do_not_meet(store):
    spec = spec_of()
    prepare(store, spec)
    with store.lock(f"training-{spec.run}", "train"):
        with pytest.raises(MechError, match=r"cannot train run tiny\.baseline\.s0: process \d+ is writing it"):
            training.train(store, spec)


def test_divergence_names_the_update_and_keeps_earlier_checkpoints(store):
    spec = spec_of(optimizer={"kind": "sgd", "learning_rate": 1e9, "clip_norm": None, "warmup_steps": 0})
    prepare(store, spec)
    with pytest.raises(MechError, match=r"tiny\.baseline\.s0 diverged at update \d+: loss"):
        training.train(store, spec)
    assert 0 in checkpoint_hashes(store, spec.run)


def test_a_corpus_too_small_for_probes_is_named(folder, store):
    for path in (folder / "text").iterdir():
        if path.name != "file_00.txt":
            path.unlink()
    with pytest.raises(MechError, match="too few documents"):
        tokens.prepare_tokens(store, spec_of(), read_corpus(spec_of().corpus))


def test_a_changed_corpus_changes_everything_after_it(store, folder):
    spec = spec_of()
    filled_once(store, spec, fill)
    path = folder / "text" / "file_00.txt"
    path.write_text(path.read_text() + "# one more line\n")
    sha = corpus_sha256(read_corpus(spec.corpus))
    assert "spec" in plan.ready_stages(store, spec, sha)
    prepare(store, spec)
    assert training_cells.missing_checkpoints(store, spec) == list(spec.checkpoint_steps())
