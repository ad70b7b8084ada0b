"""Retraining over a real store: what really happened, resumed where it was killed, and only what changed."""

import dataclasses

import numpy as np
import polars as pl
import pytest
import torch

from mech_pipeline.attribution.retraining.effects import removal_effects
from mech_pipeline.attribution.retraining.removals import random_removal
from mech_pipeline.data.corpora import corpus_sha256, read_corpus
from mech_pipeline.errors import MechError
from mech_pipeline.mechanisms.registry import MECHANISMS
from mech_pipeline.pipeline import plan
from mech_pipeline.pipeline.analysis import analysis, formation
from mech_pipeline.pipeline.influence import influence
from mech_pipeline.pipeline.retraining import lds, retraining
from mech_pipeline.pipeline.retraining import wanted as retraining_cells
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.pipeline.stage import View
from mech_pipeline.pipeline.stages import stage_of
from mech_pipeline.pipeline.training.batches import write_batches
from mech_pipeline.store.reading.query import query
from mech_pipeline.store.store import Store
from tests.support.once import filled_once
from tests.support.tiny import TINY, places, prepare, spec_of, train

NAME = "induction_copy_advantage"
STEP = 12


def asked(data=TINY["data"], **retraining):
    """The tiny run with retraining at a step that is named."""
    chosen = {"fractions": [0.1], "subsets": 4, "top": [0.1]} | retraining
    wanted = {"mechanisms": [NAME], "metasmoothness_steps": 0, "at": [STEP], "retraining": chosen}
    return spec_of(influence=wanted, ledger={}, gradients=[], detectors=[], formation=EVENT, data=data)


EVENT = [{"mechanism": NAME, "threshold": 9.0, "sustain": 2}]


@pytest.fixture
def store(folder, local_store):
    """An empty store beside the text."""
    return local_store


def up_to_influence(store, spec):
    train(store, spec)
    write_batches(store, spec)
    analysis.analyse(OpenRun(store, spec), ["mechanism_values"], spec.checkpoint_steps())
    formation.compute_formation(store, spec)
    influence.compute_influence(OpenRun(store, spec), [STEP])


@pytest.fixture
def run(store):
    """Everything up to influence."""
    return filled_once(store, asked(), up_to_influence)


def rows(run, sql):
    return query(run.store.root, sql).rows()


def value_of(run, theta):
    run.trainer.flat.load(theta)
    return float(MECHANISMS[NAME].value(run.trainer.flat.model, run.tokens.probe).detach())


def left(run):
    """What of the stage is not current."""
    return stage_of("retraining").waiting(View(run.store, (run.spec,)))


def compute(run):
    return retraining.compute_retrainings(run, STEP), lds.compute_lds(run, STEP)


def test_changes_are_those_of_plain_training_without_the_examples(run):
    assert retraining_cells.retraining_step(run) == STEP
    assert compute(run) == (6, 1)
    seen = retraining.seen_examples(run, 0, STEP)
    assert len(seen) == 64, "12 batches of 8 from a pool of 64"
    changes = dict(rows(run, "select removal, change from retrainings"))
    assert changes["none"] == 0
    for number in range(4):
        removed = random_removal(seen, 0.1, number, seed=0)
        listed = rows(run, f"select example_id from removals where removal = 'random-0.1-{number}'")
        assert {name for (name,) in listed} == {str(run.tokens.example_ids[index]) for index in removed}
        weights = torch.ones(64)
        weights[removed] = 0
        *_, last = dataclasses.replace(run.trainer, weights=weights).updates(run.state(0), STEP)
        change = value_of(run, last.after.theta) - value_of(run, run.state(STEP).theta)
        assert changes[f"random-0.1-{number}"] == pytest.approx(change, abs=3e-6), "float32, two orders of sums"


def test_the_top_is_what_influence_names_and_predictions_are_its_sums(run):
    compute(run)
    top = "select example_id from influence group by 1 order by sum(value::double) desc, example_id limit 6"
    listed = "select example_id from removals where removal = 'top-0.1-adjoint-induction_copy_advantage'"
    assert set(rows(run, top)) == set(rows(run, listed))
    measures = {row[0]: row[1:] for row in rows(run, "select metric, value, n from lds where fraction = 0.1")}
    predicted = -rows(run, f"select sum(value::double) from influence where example_id in ({top})")[0][0]
    assert measures["predicted_difference"] == (pytest.approx(predicted), 1)
    change = rows(run, "select change from retrainings where removal like 'top%'")[0][0]
    random = np.array(rows(run, "select change from retrainings where removal like 'random%'"))[:, 0]
    assert measures["query_loss_difference"] == (change, 1)
    assert measures["query_loss_z"] == (pytest.approx((change - random.mean()) / random.std(ddof=1)), 4)
    assert measures["measured_mean"] == (pytest.approx(random.mean()), 4)
    assert measures["diverged"] == (0, 4)
    scores = lds.measured_lds(run.store, run.spec.run, STEP)
    assert [(score["mechanism"], score["method"], score["fraction"], score["n"]) for score in scores] == [
        (NAME, "adjoint", 0.1, 4)
    ]
    assert -1 <= scores[0]["lower"] <= scores[0]["value"] <= scores[0]["upper"] <= 1


@pytest.mark.slow
def test_nothing_is_left_to_do_and_more_subsets_add_to_what_is_there(run):
    sha = corpus_sha256(read_corpus(run.spec.corpus))
    assert plan.ready_stages(run.store, run.spec, sha) == {"retraining": 7}
    compute(run)
    assert plan.ready_stages(run.store, run.spec, sha) == {}
    assert compute(run) == (0, 0)
    before = rows(run, "select * from retrainings order by all")
    more = OpenRun(run.store, asked(subsets=6))
    assert {cell.item for cell in retraining_cells.pending(more, STEP)} == {"random-0.1-4", "random-0.1-5"}
    assert len(left(more)) == 3
    assert compute(more) == (2, 1)
    after = rows(run, "select * from retrainings order by all")
    assert [row for row in after if row in before] == before
    assert len(after) == len(before) + 2
    assert rows(run, "select n from lds where metric = 'lds'") == [(6,)]


def test_fewer_subsets_are_compared_alone(run):
    compute(run)
    fewer = OpenRun(run.store, asked(subsets=3))
    assert compute(fewer) == (0, 1)
    assert rows(run, "select n from lds where metric = 'lds'") == [(3,)]


def test_only_what_changed_is_retrained(run, monkeypatch):
    compute(run)
    monkeypatch.setitem(
        MECHANISMS.loaded(),
        "previous_token_attention",
        dataclasses.replace(MECHANISMS["previous_token_attention"], version="2"),
    )
    assert len(left(run)) == 0, "a mechanism that influence does not name"
    moved = asked(seed=1)
    assert {cell.item for cell in retraining_cells.pending(OpenRun(run.store, moved), STEP)} == {
        f"random-0.1-{number}" for number in range(4)
    }
    run.store.write(  # other scores, as another version of influence would give
        "influence",
        query(run.store.root, "select * replace (-value as value, 'new' as data_version) from influence").to_arrow(),
        replace={"run": [run.spec.run], "step": [STEP], "mechanism": [NAME], "method": ["adjoint"]},
    )
    assert places(retraining_cells.pending(run, STEP)) == [(STEP, f"top-0.1-adjoint-{NAME}")]
    assert compute(run) == (1, 1)


def test_a_killed_stage_goes_on_with_what_is_missing(run, monkeypatch):
    stored = []
    honest = retraining.write_retrained

    def killed(run, step, finished, baseline, version):
        if len(stored) == 2:
            raise KeyboardInterrupt
        honest(run, step, finished, baseline, version)
        stored.extend(found.removal.name for found in finished)

    one_at_a_time = retraining.retrain
    monkeypatch.setattr(retraining, "retrain", lambda *a, **k: one_at_a_time(*a, rows=1, workers=1, **k))
    monkeypatch.setattr(retraining, "write_retrained", killed)
    with pytest.raises(KeyboardInterrupt):
        retraining.compute_retrainings(run, STEP)
    assert stored[0] == "none"
    monkeypatch.setattr(retraining, "write_retrained", honest)
    assert {cell.item for cell in retraining_cells.pending(run, STEP)}.isdisjoint(stored)
    assert compute(run) == (4, 1)
    assert {item for (item,) in rows(run, "select distinct removal from retrainings")} == {
        *("none", f"top-0.1-adjoint-{NAME}", "random-0.1-0", "random-0.1-1", "random-0.1-2", "random-0.1-3")
    }
    resumed = rows(run, "select removal, value from retrainings order by all")
    run.store.delete("retrainings", "step >= 0")
    compute(run)
    assert rows(run, "select removal, value from retrainings order by all") == resumed, "bit for bit, however stacked"


def test_with_a_horizon_only_late_updates_lose_their_examples(store, run):
    horizon = 4
    spec = asked()
    spec = spec.model_copy(update={"influence": spec.influence.model_copy(update={"horizon": horizon})})
    late = OpenRun(store, spec)
    influence.compute_influence(late, [STEP])
    assert compute(late) == (6, 1)
    seen = retraining.seen_examples(late, STEP - horizon, STEP)
    assert len(seen) == 32
    removed = random_removal(seen, 0.1, 0, seed=0)
    weights = torch.ones(64)
    weights[removed] = 0
    *_, before = late.trainer.updates(late.state(0), STEP - horizon)
    *_, last = dataclasses.replace(late.trainer, weights=weights).updates(before.after, STEP)
    found = rows(late, "select value from retrainings where removal = 'random-0.1-0'")[0][0]
    assert found == pytest.approx(value_of(late, last.after.theta), abs=3e-6)


def test_retrainings_that_diverge_are_counted_and_have_no_value(run, monkeypatch):
    honest = retraining.retrain

    def diverging(*arguments, **how):
        for finished in honest(*arguments, **how):
            yield {index: None if index in (1, 3) else theta for index, theta in finished.items()}

    monkeypatch.setattr(retraining, "retrain", diverging)
    lines = []
    assert retraining.compute_retrainings(run, STEP, lines.append) == 6
    assert "2 of 6 retrainings of tiny.baseline.s0 diverged; they have no value" in lines
    assert lds.compute_lds(run, STEP) == 1
    assert len(left(run)) == 0, "they are not tried again"
    measures = {row[0]: row[1:] for row in rows(run, "select metric, value, n from lds")}
    assert measures["diverged"] == (1, 4)
    assert measures["top_diverged"] == (1, 1)
    assert measures["measured_mean"][1] == 3
    assert rows(run, "select count(*) from retrainings where value is null") == [(2,)]


def test_what_cannot_be_compared_is_refused(run):
    with pytest.raises(MechError, match="no example has been seen yet"):
        retraining.compute_retrainings(run, 0)
    with pytest.raises(MechError, match="influence, which is not current → materialize `influence` there first"):
        retraining.compute_retrainings(run, 18)
    nothing = OpenRun(run.store, spec_of())
    assert retraining_cells.retraining_step(nothing) is None
    assert len(left(nothing)) == 0


def test_leaving_out_an_example_counts_with_the_weight_it_had(store, folder):
    unweighted = Store(folder / "unweighted")
    prepare(unweighted, asked())
    ids = [str(name) for name in OpenRun(unweighted, asked()).tokens.example_ids]
    rows_of_file = [(name, 0.0, 0) for name in ids[::4]] + [(name, 4.0, 6) for name in ids[1::4]]
    columns = ["example_id", "weight", "first_update"]
    pl.DataFrame(rows_of_file, schema=columns, orient="row").write_csv(folder / "weights.csv")
    spec = asked(data=TINY["data"] | {"weights": str(folder / "weights.csv")}, matched=True)
    up_to_influence(store, spec)
    run = OpenRun(store, spec)
    compute(run)
    given = "select distinct weight, update_step >= 6 from influence where example_id in ('{}')"
    assert set(rows(run, given.format("', '".join(ids[::4])))) == {(0.0, False), (0.0, True)}
    assert set(rows(run, given.format("', '".join(ids[1::4])))) == {(1.0, False), (4.0, True)}
    assert set(rows(run, given.format("', '".join(ids[2::4])))) == {(1.0, False), (1.0, True)}
    silent = f"top-0.1-adjoint-{NAME}"
    removed = {name for (name,) in rows(run, f"select example_id from removals where removal = '{silent}'")}
    assert not removed & set(ids[::4]), "nothing is lost without an example that weighs nothing"
    kinds = "select kind, count(*) from removals join examples using (example_id) where removal = '{}' group by 1 order by 1"
    matched = f"matched-0.1-adjoint-{NAME}"
    assert rows(run, kinds.format(matched)) == rows(run, kinds.format(silent))
    assert removed.isdisjoint(
        name for (name,) in rows(run, f"select example_id from removals where removal = '{matched}'")
    )
    assert rows(run, f"select count(*) from retrainings where removal = '{matched}'") == [(1,)]
    (change,) = rows(run, f"select change from retrainings where removal = '{matched}'")
    assert rows(run, "select value from lds where metric = 'matched_difference'") == [change]
    names = [f"random-0.1-{number}" for number in range(4)]
    with run.store.reading("influence", "removals", "retrainings") as connection:
        predicted = removal_effects(connection, run.spec.run, STEP, NAME, "adjoint", names)["predicted"].to_list()
    sums = "select -sum(weight::double * value) from removals join influence using (example_id) group by removal order by removal"
    wanted = rows(run, sums.replace("group", f"where removal in {tuple(names)} group"))
    assert predicted == pytest.approx([value for (value,) in wanted])
