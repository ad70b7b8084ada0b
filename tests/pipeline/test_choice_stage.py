"""Arms that choose their examples by what was measured of another arm: made after it, from it, and again if it changes."""

import copy
import shutil
from contextlib import chdir

import numpy as np
import pytest
import yaml

from mech_pipeline.data.corpora import corpus_sha256, read_corpus
from mech_pipeline.errors import MechError
from mech_pipeline.pipeline.choice import candidates
from mech_pipeline.pipeline.plan import Plan
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.resolve import resolve
from mech_pipeline.spec.experiment import parse_experiment
from mech_pipeline.store.reading.query import query
from mech_pipeline.store.store import Store
from tests.support import tiny
from tests.support.choosing import NAME, QUICK, compute, experiment_of
from tests.support.docs_commands import blocks

CHOOSE = {"by": "influence", "share": 0.2, "at": 12}


WAYS = {
    "ledger": {"by": "ledger", "count": 5, "at": 12},
    "loss": {"by": "loss", "share": 0.1, "at": 12, "end": "bottom"},
    "gzip_ratio": {"by": "gzip_ratio", "share": 0.1, "at": 12},
    "random": {"by": "random", "share": 0.1, "at": 12, "kinds": ["tiled"]},
    "sql": {"by": "sql", "sql": "select example_id, period as score from examples", "count": 3, "at": 12},
}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A store in which the baseline is trained and measured; tests take copies. A local one: choosing is the same everywhere."""
    home = tmp_path_factory.mktemp("measured")
    tiny.write_text(home)
    with chdir(home):
        compute(Store(home / "store"), experiment_of({}))
    return home / "store"


@pytest.fixture(scope="module")
def chosen(measured):
    """The same store with an arm for each way to choose, trained without what it chose."""
    with chdir(measured.parent):
        shutil.copytree(measured, measured.with_name("chosen"))
        store = Store(measured.with_name("chosen"))
        compute(store, experiment_of(WAYS))
    return store


@pytest.fixture
def store(tmp_path, measured):
    shutil.copytree(measured, tmp_path / "store")
    return Store(tmp_path / "store")


def rows(store, run):
    return query(store.root, f"select * from choices where run = '{run}' order by rank, first_update")


@pytest.mark.slow
def test_top_influence_is_left_out_and_what_is_matched_is_alike(local_store, folder):
    store = local_store
    experiment = experiment_of({"top": CHOOSE, "matched": {"like": "top"}, "twice": CHOOSE | {"do": "duplicate"}})
    order = compute(store, experiment)
    assert order.index(("influence", "tiny.baseline.s0")) < order.index(("choice", "tiny.top.s0"))
    assert order.index(("choice", "tiny.top.s0")) < order.index(("training", "tiny.top.s0"))
    top, matched = rows(store, "tiny.top.s0"), rows(store, "tiny.matched.s0")
    truth = query(
        store.root,
        "select example_id, sum(weight::double * value) as total from influence where run = 'tiny.baseline.s0' and step = 12 "
        "group by 1 order by total desc",
    )
    assert top["example_id"].to_list() == truth["example_id"].to_list()[: len(top)]
    assert top["score"].to_list() == pytest.approx(truth["total"].to_list()[: len(top)])
    assert matched["stands_for"].to_list() == top["example_id"].to_list()
    assert not set(matched["example_id"]) & set(top["example_id"])
    kinds = dict(query(store.root, "select example_id, kind from examples").rows())
    assert [kinds[one] for one in matched["example_id"]] == [kinds[one] for one in top["example_id"]]
    assert set(query(store.root, "select characteristic from choice_balance")["characteristic"]) == {"loss", "length"}
    assert set(rows(store, "tiny.twice.s0")["weight"]) == {2.0}


@pytest.mark.slow
def test_training_without_chosen_examples_is_training_with_these_weights(store, folder, tmp_path):
    """The weights of a file that says the same give the same bits."""
    compute(store, experiment_of({"top": CHOOSE}))
    rows(store, "tiny.top.s0").select("example_id", "weight").write_csv(tmp_path / "weights.csv")
    content = copy.deepcopy(tiny.TINY) | QUICK
    content |= {"experiment": "file", "influence": {}, "data": content["data"] | {"weights": "weights.csv"}}
    content["arms"] = {"baseline": {}}
    compute(store, resolve(parse_experiment(content)))
    assert tiny.checkpoint_hashes(store, "tiny.top.s0") == tiny.checkpoint_hashes(store, "file.baseline.s0")
    assert tiny.checkpoint_hashes(store, "tiny.top.s0") != tiny.checkpoint_hashes(store, "tiny.baseline.s0")


@pytest.mark.slow
def test_nothing_is_made_again_and_another_recipe_trains_only_its_arm(store, folder):
    compute(store, experiment_of({"top": CHOOSE, "some": {"by": "random", "share": 0.2, "at": 12}}))
    assert compute(store, experiment_of({"top": CHOOSE, "some": {"by": "random", "share": 0.2, "at": 12}})) == []
    again = compute(
        store, experiment_of({"top": CHOOSE | {"share": 0.3}, "some": {"by": "random", "share": 0.2, "at": 12}})
    )
    assert {run for stage, run in again if stage != "comparison"} == {"tiny.top.s0"}
    assert ("comparison", "tiny") in again
    assert ("training", "tiny.top.s0") in again


@pytest.mark.slow
def test_other_influence_trains_again_only_what_chose_by_it(store, folder):
    """Another estimator's numbers in the place of the exact ones, as after a new version of it."""
    arms = {"top": CHOOSE, "some": {"by": "random", "share": 0.2, "at": 12}}
    compute(store, experiment_of(arms))
    again = compute(store, experiment_of(arms, influence=QUICK["influence"] | {"horizon": 3}))
    trained = {run for stage, run in again if stage == "training"}
    assert trained == {"tiny.top.s0"}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_choose_gives_what_a_query_gives(chosen, way):
    store, choice = chosen, WAYS[way]
    found = rows(store, f"tiny.{way}.s0")
    ids = found["example_id"].to_list()
    seen = set(query(store.root, "select example_id from batches where run = 'tiny.baseline.s0'")["example_id"])
    assert set(ids) <= seen
    assert len(ids) == choice.get("count", round(choice.get("share", 0) * len(seen))) or choice.get("kinds")
    if choice["by"] == "ledger":
        truth = query(
            store.root,
            "select example_id from ledger where term = 'example' and run = 'tiny.baseline.s0' group by 1 "
            "order by sum(value::double + value_later::double) desc limit 5",
        )
        assert ids == truth["example_id"].to_list()
    if choice["by"] == "random":
        kinds = dict(query(store.root, "select example_id, kind from examples").rows())
        assert {kinds[one] for one in ids} == {"tiled"}
    if choice["by"] == "sql":
        periods = dict(query(store.root, "select example_id, period from examples").rows())
        assert (
            sorted((periods[one] for one in ids), reverse=True) == sorted((periods[s] for s in seen), reverse=True)[:3]
        )
    if choice["by"] == "loss":
        assert found["score"].is_sorted()


def test_losses_are_computed_once_for_all_arms_that_ask_for_them(store, folder, monkeypatch):
    """By contents: another state, or another pool, is another answer."""
    asked, real = [], candidates.example_losses
    monkeypatch.setattr(candidates, "example_losses", lambda *given: asked.append(given) or real(*given))
    monkeypatch.setattr(candidates, "_known_losses", {})
    by = {"by": "loss", "count": 3, "at": 12}
    compute(store, experiment_of({"most": by, "least": by | {"end": "bottom"}, "early": by | {"at": 6}}))
    passes = -(-64 // 32)
    assert len(asked) == 2 * passes, "two states of one run"
    assert len(candidates._known_losses) == 2
    chosen = query(store.root, "select run, example_id from choices where run like '%st.s0'").rows()
    assert len(set(chosen)) == len({one for _, one in chosen}) == 6


def test_a_run_that_did_not_form_is_nothing_to_choose_by(store, folder):
    never = [{"mechanism": NAME, "threshold": 99.0, "sustain": 1}]
    experiment = experiment_of({"top": {"by": "ledger", "share": 0.1}}, formation=never)
    compute(store, experiment)
    corpora = {spec.run: corpus_sha256(read_corpus(spec.corpus)) for spec in experiment.runs()}
    plan = Plan(store, experiment.runs(), corpora, experiment)
    plan.look()
    refused = plan.refused("tiny.top.s0")
    assert "did not form in it (it is censored); say `at: STEP`" in refused["choice"]
    assert refused["training"].startswith("reads choice, which chooses examples by what run tiny.baseline.s0 did")
    assert plan.ready("tiny.top.s0") == {}


def test_examples_are_seen_by_the_same_updates_in_both_arms(chosen, folder):
    """Arms share initialisation and order, so that what differs is the choice alone."""
    baseline, *arms = (OpenRun(chosen, spec) for spec in experiment_of(WAYS).runs())
    for update in range(12):
        for arm in arms:
            assert np.array_equal(baseline.trainer.batch(update), arm.trainer.batch(update))


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"by": "influence"}, "name one of `share`"),
        ({"by": "influence", "share": 0.1, "count": 3}, "name one of `share`"),
        ({"by": "influence", "share": 1.5}, "less than 1"),
        ({"by": "influence", "share": 0.1, "of": "x"}, "unknown arm 'x'; allowed: baseline, a, b"),
        ({"by": "influence", "share": 0.1, "of": "a"}, "arm a waits for itself"),
        ({"like": "b"}, "arm a waits for itself"),
        ({"like": "baseline"}, "arm baseline chooses no examples"),
        ({"like": "a", "share": 0.1}, "`like` says which and how many"),
        ({"by": "influence", "share": 0.1, "mechanism": "copy"}, "influence has none 'copy'"),
        ({"by": "influence", "share": 0.1, "method": "ekfac"}, "influence.methods lacks 'ekfac'"),
        ({"by": "random", "count": 64}, "leaves nothing to train on"),
        ({"by": "random", "count": 3, "window": [20, 30]}, "after the last of 12 updates"),
        ({"by": "random", "count": 3, "at": 5}, "keeps no state at step 5"),
        ({"by": "random", "count": 3, "do": "weight"}, "go together"),
        ({"by": "random", "count": 3, "do": "delay"}, "go together"),
        ({"by": "sql", "count": 3}, "go together"),
        ({"by": "random", "count": 3, "outside": True}, "needs a `window`"),
        ({"by": "random", "count": 3, "window": [5, 2]}, "first update"),
    ],
)
def test_mistakes_are_named_before_anything_is_trained(folder, choice, words):
    other = {"like": "a"}
    with pytest.raises(MechError) as caught:
        experiment_of({"a": choice, "b": other})
    assert words in str(caught.value)


def test_the_arms_of_the_page_are_valid(folder):
    (block,) = (each for each in blocks("docs/data.md", "yaml") if "choose" in each.text)
    content = copy.deepcopy(tiny.TINY) | {"training": {"steps": 1400, "batch": 32}} | yaml.safe_load(block.text)
    assert [spec.arm for spec in parse_experiment(content).runs() if spec.choice is not None] == [
        arm for arm in yaml.safe_load(block.text)["arms"] for _ in content["seeds"] if arm != "baseline"
    ]


def test_a_seed_that_the_other_arm_lacks_and_an_account_that_nobody_asked_for_are_named(folder):
    content = copy.deepcopy(tiny.TINY) | QUICK
    content["arms"] = {"baseline": {}, "a": {"seeds": [0, 7], "choose": CHOOSE}}
    with pytest.raises(MechError, match="arm baseline trains no seed 7"):
        parse_experiment(content)
    content = copy.deepcopy(tiny.TINY) | QUICK | {"seeds": [0, 1]}
    content["arms"] = {"baseline": {}, "a": {"choose": CHOOSE}}
    with pytest.raises(MechError, match="no influence of arm baseline, seed 1, is asked for"):
        parse_experiment(content)
    content["arms"] = {"baseline": {}, "a": {"data": {"plain": 1.0, "tiled": 0.0}, "choose": CHOOSE}}
    with pytest.raises(MechError, match="the arm changes data"):
        parse_experiment(content)
