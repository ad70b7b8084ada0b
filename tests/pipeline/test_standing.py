"""How far a run is, in words: counted from the store, against the run's own plan."""

import pytest

from mech_pipeline.data.corpora import corpus_sha256, read_corpus
from mech_pipeline.pipeline import alone
from mech_pipeline.pipeline.analysis import analysis
from mech_pipeline.pipeline.analysis import wanted as analysis_cells
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.pipeline.standing import standing
from tests.support.once import trained
from tests.support.tiny import checkpoint_hashes, spec_of, write_text

STEPS = (0, 3, 6, 12, 18, 24)


@pytest.fixture
def store(tmp_path, monkeypatch, local_store):
    """An empty store beside the text."""
    write_text(tmp_path)
    monkeypatch.chdir(tmp_path)
    return local_store


def test_a_run_is_counted_from_the_store_as_it_grows(store):
    spec = spec_of(0)
    assert standing(store, spec) == "0 of 6 checkpoints"
    run = trained(store, spec)
    assert sorted(checkpoint_hashes(store, spec.run)) == list(STEPS)
    assert standing(store, spec) == "6 of 6 checkpoints, 0 of 6 analysed, ledger 0 of 5"
    analysis.analyse(OpenRun(store, spec), analysis_cells.OUTPUTS, STEPS[:4])
    assert standing(store, spec) == "6 of 6 checkpoints, 4 of 6 analysed, ledger 0 of 5"
    corpora = {spec.run: corpus_sha256(read_corpus(spec.corpus))}
    alone.compute_all(store, [run.spec], corpora)
    done = "6 of 6 checkpoints, analysed, ledger 5 of 5"
    assert standing(store, spec) in (done, f"{done}, influence 1 of 1")


def test_what_a_run_does_not_ask_for_is_not_counted(store):
    spec = trained(store, spec_of(0, ledger={}, influence={})).spec
    assert standing(store, spec) == "6 of 6 checkpoints, 0 of 6 analysed"


def test_a_longer_plan_counts_what_is_missing(store):
    trained(store, spec_of(0))
    longer = spec_of(0, checkpoints={"every": 6, "dense_every": 3, "dense": [[0, 6], [12, 18]]})
    assert standing(store, longer) == "6 of 7 checkpoints, 0 of 7 analysed"
