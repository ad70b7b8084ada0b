"""Comparisons of an experiment's arms: made once all runs have settled, from what the store holds, and again if that changes."""

import subprocess
import sys

import numpy as np
import pytest
import yaml
from scipy import stats

from mech_pipeline.causal.arms import pairs, recipes
from mech_pipeline.data.corpora import corpus_sha256, read_corpus
from mech_pipeline.pipeline.plan import Plan
from mech_pipeline.project import report_name
from mech_pipeline.resolve import resolve
from mech_pipeline.spec.experiment import parse_experiment
from mech_pipeline.store.reading.query import query
from mech_pipeline.store.store import Store
from tests.support import tiny
from tests.support.causes import ARMS, NAME, QUICK, compute, experiment_of
from tests.support.places import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The experiment computed once, with what worked in which order."""
    home = tmp_path_factory.mktemp("home")
    tiny.write_text(home)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        store = Store(home / "store")
        yield store, compute(store, experiment_of())


def rows(store, sql):
    return query(store.root, sql)


def test_comparisons_come_after_all_runs_and_before_the_report_and_only_once(made):
    store, done = made
    stages = [stage for stage, _ in done]
    assert stages.count("comparison") == 1
    assert stages.index("comparison") > max(i for i, stage in enumerate(stages) if stage in ("formation", "influence"))
    assert stages.index("comparison") < stages.index("report")
    assert compute(store, experiment_of()) == []


def test_every_arm_is_compared_with_what_it_chose_by_and_with_what_was_matched_to_it(made):
    store, _ = made
    found = set(rows(store, "select arm, reference from comparisons").rows())
    assert found == {(arm, "baseline") for arm in ARMS if arm != "baseline"} | {("top", "matched")}
    table = rows(store, "select * from comparisons")
    assert set(table["pairs"]) == {2}
    assert set(table["shift"]) == {0.0}, "all form at once"
    assert table["lower"].null_count() == table.height, "two pairs exclude nothing"
    assert set(table["smallest_p"]) == {0.5}
    assert set(table["smallest_p_holm"]) == {1.0}
    assert set(table["p_holm"]) == {1.0}


def test_arms_say_how_many_formed_and_how_many_examples_were_chosen(made):
    store, _ = made
    table = {row["arm"]: row for row in rows(store, "select * from arms").iter_rows(named=True)}
    assert set(table) == set(ARMS)
    assert {(row["runs"], row["formed"], row["median"]) for row in table.values()} == {(2, 2, 0)}
    counts = rows(
        store,
        "select split_part(run, '.', 2) as arm, count(distinct run || example_id) / 2 as n from choices group by 1",
    )
    assert {arm: row["chosen"] for arm, row in table.items() if row["chosen"]} == dict(counts.rows())


def test_predictions_are_sums_of_changed_weights_times_influence(made):
    """Against the sum written out update by update, and the values of both runs."""
    store, _ = made
    table = rows(store, "select * from predictions")
    assert sorted(set(table["arm"])) == ["less", "matched", "placebo", "top", "twice"]
    for row in table.iter_rows(named=True):
        influence = rows(
            store, f"select example_id, update_step, value from influence where run = '{row['baseline']}' and step = 12"
        ).rows()
        chosen = set(rows(store, f"select example_id from choices where run = '{row['run']}'")["example_id"])
        weight = {"twice": 2.0, "placebo": 1.0}.get(row["arm"], 0.0)
        window = range(3, 7) if row["arm"] == "twice" else range(12)
        truth = sum((weight - 1) * value for name, update, value in influence if name in chosen and update in window)
        assert row["predicted"] == pytest.approx(truth, rel=1e-6, abs=1e-12)
        assert row["examples"] == len(chosen)
        values = dict(
            rows(store, f"select run, value from mechanism_values where step = 12 and mechanism = '{NAME}'").rows()
        )
        assert row["measured"] == pytest.approx(values[row["run"]] - values[row["baseline"]])
        assert row["shift"] == 0.0
    placebo = table.filter(arm="placebo")
    assert placebo["predicted"].to_list() == [0.0, 0.0]
    assert np.abs(placebo["measured"].to_numpy()).max() < 1e-5, "the same training, but for rounding"


def test_measures_are_those_of_scipy_over_the_predictions(made):
    store, _ = made
    table = rows(store, "select * from predictions")
    measures = rows(store, "select metric, value, n from causal_measures where subject = 'predictions by adjoint'")
    found = {metric: value for metric, value, _ in measures.rows()}
    rank = stats.spearmanr(table["predicted"], table["measured"]).statistic
    line = stats.linregress(table["predicted"], table["measured"])
    assert found["rank_correlation"] == pytest.approx(rank)
    assert (found["slope"], found["offset"]) == (pytest.approx(line.slope), pytest.approx(line.intercept))
    assert set(measures["n"]) == {table.height}
    trends = rows(store, "select metric, value, n from causal_measures where subject like 'delete by influence%'")
    assert {metric: value for metric, value, _ in trends.rows()} == {
        "page": 24.0,  # 2 seeds, all doses tied: Σ_j j · 2 each
        "page_expected": 24.0,
        "page_p": 1.0,
    }


def test_a_run_that_never_forms_leaves_comparisons_of_what_there_is(tmp_path, monkeypatch):
    """Arms that would choose by where it formed are refused; the experiment is compared all the same."""
    tiny.write_text(tmp_path)
    monkeypatch.chdir(tmp_path)
    store = Store(tmp_path / "store")
    never = [{"mechanism": NAME, "threshold": 99.0, "sustain": 1}]
    arms = {"baseline": {}, "top": {"choose": {"by": "influence", "share": 0.2}}}
    done = compute(store, experiment_of(arms, formation=never, influence=QUICK["influence"] | {"at": "formation"}))
    assert ("comparison", "tiny") in done
    table = rows(store, "select arm, runs, formed, median from arms")
    assert table.rows() == [("baseline", 2, 0, None), ("top", 0, 0, None)]
    assert rows(store, "select pairs, shift, p, p_holm from comparisons").rows() == [(0, None, None, None)]
    assert rows(store, "select count(*) from predictions").item() == 0


def test_runs_that_stopped_before_the_target_are_counted_and_not_silently_left_out(tmp_path, monkeypatch):
    """Once more computed, nothing is left to do; the report says it."""
    tiny.write_text(tmp_path)
    monkeypatch.chdir(tmp_path)
    store = Store(tmp_path / "store")
    early = {"training": {"steps": 12, "batch": 8, "stop": {"settled": 5}}}
    arms = {name: ARMS[name] for name in ("baseline", "top", "placebo")}
    experiment = experiment_of(arms | {"top": ARMS["top"] | early})
    compute(store, experiment)
    assert set(rows(store, "select run from stops")["run"]) == {"tiny.top.s0", "tiny.top.s1"}
    assert set(rows(store, "select run from predictions")["run"]) == {"tiny.placebo.s0", "tiny.placebo.s1"}
    counted = rows(store, "select subject, value, n from causal_measures where metric = 'stopped_before'")
    assert counted.rows() == [("predictions by adjoint", 2.0, 2)]
    assert set(rows(store, "select n from causal_measures where metric = 'slope'")["n"]) == {2}
    assert compute(store, experiment) == []
    report = store.files.read(report_name("tiny")).decode()
    assert "2 runs stopped before the target step of their baseline" in report


def test_an_experiment_without_choices_compares_nothing(tmp_path, monkeypatch):
    tiny.write_text(tmp_path)
    monkeypatch.chdir(tmp_path)
    experiment = experiment_of({"baseline": {}, "faster": ARMS["faster"]})
    corpora = {spec.run: corpus_sha256(read_corpus(spec.corpus)) for spec in experiment.runs()}
    plan = Plan(Store(tmp_path / "store"), experiment.runs(), corpora, experiment)
    plan.look()
    assert "comparison" not in plan.ready("tiny")


def scaled_down(name):
    """The file as it is, but for tiny text, model and training; everything forms at its first evaluation."""
    content = yaml.safe_load((ROOT / "experiments" / f"{name}.yaml").read_text())
    tiny_parts = {part: tiny.TINY[part] for part in ("corpus", "tokenizer", "data", "model", "probe")}
    if "generated" in content["corpus"]:  # a language of its own, which its mechanisms need
        few = {"corpus": {"generated": content["corpus"]["generated"] | {"documents": 600}}}
        tiny_parts |= few | {"tokenizer": content["tokenizer"], "data": content["data"] | {"examples": 64}}
    tiny_parts |= QUICK
    watched = [{**event, "threshold": -99.0, "sustain": 1} for event in content["formation"]]
    kept = {
        "mechanisms": content["mechanisms"],
        "ledger": content.get("ledger", {}) | {"seeds": "all"},
        "seeds": [0, 1],
        "formation": watched,
    }
    content |= tiny_parts | kept | {"influence": content["influence"] | {"at": [12], "seeds": "all"}}
    for arm in content["arms"].values():
        arm.pop("seeds", None)
        if choice := arm.get("choose"):
            choice |= {"at": 12} | ({"window": [0, 3]} if isinstance(choice.get("window"), list) else {})
    return resolve(parse_experiment(content))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["induction_causes"])
def test_the_experiments_of_the_repository_run_through_all_stages(name, tmp_path, monkeypatch):
    """Scaled down. At full size, every arm has as many seeds as a claim after Holm needs."""
    file = parse_experiment(yaml.safe_load((ROOT / "experiments" / f"{name}.yaml").read_text()))
    assert 2.0 ** (1 - len(file.seeds)) * len(pairs(file)) < 0.05
    tiny.write_text(tmp_path)
    monkeypatch.chdir(tmp_path)
    store, experiment = Store(tmp_path / "store"), scaled_down(name)
    done = compute(store, experiment)
    assert ("report", name) in done
    mechanism = experiment.formation[0].mechanism
    compared = rows(store, f"select pairs from comparisons where mechanism = '{mechanism}'")
    assert compared["pairs"].to_list() == [2] * len(pairs(experiment))
    assert set(rows(store, "select arm from predictions")["arm"]) == set(recipes(experiment))


def test_what_is_to_be_compared_is_known_without_statistics():
    """`mech status` and every look of a launcher ask it."""
    code = "import sys\nimport mech_pipeline.pipeline.plan\nprint(*(name for name in sys.modules if name == 'scipy'))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
