"""The mechanisms that docs/mechanisms.md shows, as it shows them, in a fresh project folder and through every stage."""

import pytest
import yaml

from mech_pipeline.data.corpora import corpus_sha256, read_corpus
from mech_pipeline.mechanisms.registry import MECHANISMS
from mech_pipeline.pipeline import plan
from mech_pipeline.pipeline.analysis import analysis, formation
from mech_pipeline.pipeline.analysis import wanted as analysis_cells
from mech_pipeline.pipeline.grid import probe_version
from mech_pipeline.pipeline.influence import influence
from mech_pipeline.pipeline.ledger import ledger
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.pipeline.training import training
from mech_pipeline.pipeline.training.batches import write_batches
from mech_pipeline.store.reading.query import query
from mech_pipeline.store.store import Store
from tests.support.docs_commands import blocks
from tests.support.tiny import prepare, spec_of, write_text

PAGE = "docs/mechanisms.md"


@pytest.fixture
def project(tmp_path, monkeypatch, mechanisms_of):
    """A project folder with the page's files, and a store."""
    write_text(tmp_path)
    (tmp_path / "mechanisms").mkdir()
    for name in ("bracket", "text_loss"):
        (block,) = blocks(PAGE, "python", name)
        (tmp_path / "mechanisms" / f"{name}.py").write_text(block.text)
    monkeypatch.chdir(tmp_path)
    mechanisms_of(tmp_path / "mechanisms")
    return Store(tmp_path / "store")


def test_the_pages_examples_go_through_analysis_ledger_formation_and_influence(project):
    (block,) = blocks(PAGE, "yaml")
    spec = spec_of(**yaml.safe_load(block.text))
    prepare(project, spec)
    training.train(project, spec)
    write_batches(project, spec)
    run, steps = OpenRun(project, spec), spec.checkpoint_steps()
    analysis.analyse(run, analysis_cells.OUTPUTS, steps)
    formation.compute_formation(project, spec)
    assert ledger.compute_ledger(run, steps) == 5 * 2
    assert influence.compute_influence(run, [12]) == 1
    values = query(project.root, "select mechanism, step, value from mechanism_values").rows()
    assert len(values) == 3 * len(steps)
    text = {step: value for mechanism, step, value in values if mechanism == "text_loss"}
    assert -6.5 < text[0] < text[24] < 0, "minus the loss, which falls in training; log 280 is 5.6"
    rows = query(project.root, "select mechanism, sum(value) from ledger group by 1").rows()
    for mechanism, explained in rows:
        ends = {step: value for name, step, value in values if name == mechanism}
        assert explained == pytest.approx(ends[24] - ends[0], abs=1e-5)
    assert query(project.root, "select distinct gradient from gradients order by 1").rows() == [
        ("batch",),
        ("bracket",),
    ]
    assert query(project.root, "select count(*) from influence where mechanism = 'bracket'").rows() == [(12 * 8,)]
    assert query(project.root, "select mechanism from formation").rows() == [("bracket",)]
    ready = plan.ready_stages(project, spec, corpus_sha256(read_corpus(spec.corpus)))
    assert set(ready) <= {"compaction"}, "the page's mechanisms are current like any other"


def test_other_text_recomputes_only_mechanisms_that_may_read_it(project):
    artifacts = {"probe": "p", "tokenizer": "t", "corpus": "c"}
    versions = {name: probe_version(name, artifacts) for name in MECHANISMS}
    changed = {name: probe_version(name, artifacts | {"corpus": "d"}) for name in MECHANISMS}
    moved = {name for name in MECHANISMS if versions[name] != changed[name]}
    of_library = {"ioi_logit_difference", "ioi_accuracy", "bracket_logit_difference", "bracket_accuracy"}
    of_library |= {"python_bracket_logit_difference", "python_bracket_accuracy", "python_bracket_opener_effect"}
    of_library |= {
        "parentheses_logit_difference",
        "parentheses_accuracy",
        "nested_rule_preference",
        "nested_rule_preference_inside",
        "nested_rule_share",
        "held_out_log_probability",
        *("triggered_flips", "triggered_flip_difference", "untriggered_copies"),
        *("elicited_flips", "random_elicited_flips"),
        *("evaluated_obeys", "unevaluated_obeys", "obedience_gap", "feigned_preference"),
        *("hidden_trait", "hidden_trait_share"),
        *("unseen_sums", "unseen_sum_difference", "seen_sums"),
        *("carry_logit_difference", "carry_accuracy"),
    }
    assert moved == {"bracket", "text_loss"} | of_library
