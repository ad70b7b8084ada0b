"""docs/extend.md: every block of code, as it stands, does what its recipe promises."""

import dataclasses
import re

import numpy as np
import pytest
import torch

from mech_pipeline.data import corpora
from mech_pipeline.data.languages import LANGUAGES
from mech_pipeline.mechanisms.probe import Probe, Sequences
from mech_pipeline.mechanisms.readouts import Marked
from mech_pipeline.mechanisms.registry import DETECTORS
from mech_pipeline.mechanisms.tasks.induction import attention_patterns
from mech_pipeline.signals.moment import Moment
from mech_pipeline.spec.data import Corpus, Generated
from mech_pipeline.spec.experiment import parse_experiment
from mech_pipeline.store.reading.query import query
from mech_pipeline.store.tables.all import TABLES
from mech_pipeline.store.tables.documentation import tables_markdown
from mech_pipeline.training.flat import FlatModel
from mech_pipeline.training.model import build_model
from tests.support.docs_commands import blocks
from tests.support.models import ARCHITECTURES, CONTEXT, VOCABULARY
from tests.support.places import ROOT
from tests.support.tiny import TINY

PAGE = "docs/extend.md"


def made(name):
    """What the page's block of that name defines."""
    (block,) = blocks(PAGE, "python", name)
    namespace = {}
    exec(compile(block.text, f"{PAGE}, line {block.line}", "exec"), namespace)
    return namespace


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_readout_has_its_extremes_and_a_derivative(architecture):
    entropy = made("readout")["entropy"]
    tokens = torch.randint(0, VOCABULARY, (3, CONTEXT), generator=torch.Generator().manual_seed(1))
    marked = Marked(tokens, torch.arange(CONTEXT).expand(3, -1) > 2)
    flat = FlatModel(build_model(ARCHITECTURES[architecture], VOCABULARY, CONTEXT, 0).double())
    start = flat.vector.clone()
    gradient = flat.gradient(entropy(flat.model, marked))
    direction = torch.randn(len(start), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    ends = []
    for side in (1, -1):
        flat.load(start + side * 1e-6 * direction)
        ends.append(entropy(flat.model, marked).item())
    assert float(gradient @ direction) == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-5)
    flat.load(torch.zeros_like(start))
    assert entropy(flat.model, marked).item() == pytest.approx(np.log(VOCABULARY)), "it knows nothing"


def test_the_signal_is_a_number_of_a_moment():
    signal, theta = made("signal")["SIGNAL"], torch.zeros(3)
    at = Moment(
        1,
        FlatModel(torch.nn.Linear(1, 1)),
        theta,
        torch.tensor([3.0, 0.0, 4.0]),
        None,
        torch.zeros(1, 2).long(),
        theta.long(),
    )
    assert signal.compute(at) == 5.0
    assert np.isnan(signal.compute(dataclasses.replace(at, before=None)))


def test_the_detector_scores_one_on_its_head_and_can_be_asked_for(monkeypatch):
    monkeypatch.setitem(DETECTORS, "two_back", None)  # taken away again after the test
    score = made("detector")["two_back"]
    perfect = torch.diag(torch.ones(10), -2).expand(2, 3, -1, -1)
    assert torch.allclose(score(None, [perfect], None), torch.ones(1, 3))
    experiment = parse_experiment(TINY | {"detectors": ["two_back", "prefix_matching"]})
    assert experiment.detectors[0] == "two_back"
    model = build_model(ARCHITECTURES["attention-only"], VOCABULARY, CONTEXT, 0)
    sequences = Sequences(torch.arange(CONTEXT).remainder(6)[None], torch.tensor([6]))
    scores = DETECTORS["two_back"].score(None, attention_patterns(model, sequences), Probe(sequences, sequences))
    assert scores.shape == (2, 2)
    assert bool(((scores > 0) & (scores < 0.5)).all()), "an untrained head attends nearly evenly"


def test_the_language_gives_the_same_documents_in_any_order(monkeypatch):
    monkeypatch.setitem(LANGUAGES, "counting", made("language")["document"])
    asked = Generated.model_construct(language="counting", documents=4, seed=3)
    documents = corpora.read_corpus(Corpus.model_construct(generated=asked))
    texts = [document.text for document in documents]
    assert [documents[index].text for index in (3, 1)] == [texts[3], texts[1]]
    assert all(re.fullmatch(r"count( \d){20} \.", text) for text in texts)
    assert len(set(texts)) > 1


def test_the_table_is_checked_written_read_and_documented(monkeypatch, local_store):
    table = made("table")["WEIGHT_NORMS"]
    monkeypatch.setitem(TABLES, table.name, table)
    rows = {
        "run": ["tiny.a.s0"],
        "step": [3],
        "value": [1.5],
        "input_fingerprint": ["made from"],
        "data_version": ["holds"],
    }
    local_store.write(table.name, rows, replace={"run": ["tiny.a.s0"], "step": [3]})
    assert query(local_store.root, "select step, value from weight_norms").rows() == [(3, 1.5)]
    with pytest.raises(ValueError, match="weight_norms"):
        local_store.write(table.name, rows | {"value": [float("nan")]}, replace={"run": ["tiny.a.s0"], "step": [3]})
    assert "L2 norm of all weights" in tables_markdown()


def test_the_stage_is_the_one_that_the_tests_of_stages_add():
    """tests/pipeline/test_stages.py runs it: planned, computed, known to Dagster."""
    (block,) = blocks(PAGE, "python", "stage")
    assert block.text.strip() == (ROOT / "tests" / "support" / "toy_stage.py").read_text().strip()


def test_every_block_of_the_page_is_run_here():
    named = set(re.findall(r"^```python (\w+)$", (ROOT / PAGE).read_text(encoding="utf-8"), flags=re.M))
    assert named == {"readout", "detector", "signal", "language", "stage", "table"}
