"""What made the neurons as rows: whole windows, only what changed, and the report's table."""

from pathlib import Path

import pytest

from mech_pipeline.data.corpora import corpus_sha256, read_corpus
from mech_pipeline.errors import MechError
from mech_pipeline.pipeline.analysis import analysis, neurons
from mech_pipeline.pipeline.analysis import wanted as analysis_cells
from mech_pipeline.pipeline.plan import ready_stages
from mech_pipeline.pipeline.report import make_report
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.pipeline.training.batches import write_batches
from mech_pipeline.spec.experiment import parse_experiment
from mech_pipeline.store.reading.query import query
from mech_pipeline.store.store import Store
from tests.support import tiny
from tests.support.once import trained

MODEL = {"layers": 2, "heads": 2, "d_model": 16, "d_mlp": 12, "activation": "solu", "normalization": "layer_norm"}
ASKED = {"windows": [[0, 6], [6, 24]], "tokens": 4, "contexts": 2, "ablated": 8}
CHANGE = {"mechanisms": ["induction_copy_advantage"], "model": MODEL, "neurons": ASKED, "influence": {}, "ledger": {}}


@pytest.fixture
def run(folder, local_store):
    return trained(local_store, tiny.spec_of(**CHANGE))


def rows(run, sql):
    return query(run.store.root, sql)


def test_windows_are_computed_once_and_balance(run):
    seen = []
    assert tiny.places(analysis_cells.pending_neurons(run, run.planned)) == [(6, ""), (24, "")]
    assert neurons.compute_neurons(run, run.planned, seen.append) == 2
    assert seen == [[6], [24]]
    assert neurons.compute_neurons(run, run.planned, seen.append) == 0
    assert seen[-1] == [6, 24]
    found = rows(run, "select * from neurons")
    assert found.height == 2 * 2 * 12 * 2, "windows × layers × neurons × in and out"
    for row in found.iter_rows(named=True):
        explained = row["examples"] + row["weight_decay"] + row["momentum"]
        assert explained == pytest.approx(row["displacement"], rel=1e-4)
        assert row["effective_tokens"] >= 1
    measured = found.filter(found["effect_low"].is_not_null())
    assert measured.select("step", "layer", "neuron").n_unique() <= 16
    assert (measured["effect_low"] <= measured["effect_high"]).all()
    assert measured.height > 0


def test_tokens_and_positions_are_those_of_the_examples(run):
    neurons.compute_neurons(run, [24])
    tokens = rows(run, "select * from neuron_tokens order by layer, neuron, part, place")
    assert tokens["place"].max() == 3
    assert (tokens["score"] > 0).all()
    assert (tokens["share"] <= 1).all()
    falling = (
        "select score <= lag(score) over (partition by layer, neuron, part order by place) as falls from neuron_tokens"
    )
    assert rows(run, f"select bool_and(falls) from ({falling}) where falls is not null").item()
    contexts = rows(
        run,
        """select c.update_step, c.text, c.before || c.text || c.after as whole, e.text as example, c.position
        from neuron_contexts c join examples e using (example_id)""",
    )
    assert contexts.height == rows(run, "select count(*) from neuron_contexts").item()
    assert contexts["update_step"].is_between(6, 23).all()
    ascii_only = [row for row in contexts.iter_rows(named=True) if "\ufffd" not in row["whole"]]
    assert all(row["whole"] in row["example"] for row in ascii_only)
    write_batches(run.store, run.spec)
    seen = "semi join batches b on (b.run, b.update_step, b.example_id) = (c.run, c.update_step, c.example_id)"
    assert rows(run, f"select count(*) from neuron_contexts c {seen}").item() == contexts.height


def test_only_what_changed_is_computed_again(run, monkeypatch):
    neurons.compute_neurons(run, run.planned)
    other = OpenRun(run.store, tiny.spec_of(**CHANGE | {"neurons": ASKED | {"windows": [[0, 6], [12, 24]]}}))
    assert tiny.places(analysis_cells.pending_neurons(other, other.planned)) == [(24, "")]
    finer = OpenRun(run.store, tiny.spec_of(**CHANGE | {"neurons": ASKED | {"tokens": 5}}))
    assert len(analysis_cells.pending_neurons(finer, finer.planned)) == 2
    write = Store.write

    def killed(store, table, *arguments, **named):
        if table == "neurons":
            raise KeyboardInterrupt
        return write(store, table, *arguments, **named)

    monkeypatch.setattr(Store, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        neurons.compute_neurons(finer, [6])
    monkeypatch.setattr(Store, "write", write)
    assert (6, "") in tiny.places(analysis_cells.pending_neurons(finer, finer.planned)), "half of a window is none"


@pytest.mark.slow
def test_the_plan_and_the_report_know_neurons(run):
    write_batches(run.store, run.spec)
    assert ready_stages(run.store, run.spec, corpus_sha256(read_corpus(run.spec.corpus)))["neurons"] == 2
    analysis.analyse(run, analysis_cells.OUTPUTS, run.planned)
    experiment = parse_experiment(tiny.TINY | CHANGE | {"arms": {"baseline": {}}, "seeds": [0]})
    assert "neurons.png" not in make_report(run.store, experiment).figures
    neurons.compute_neurons(run, run.planned)
    made = make_report(run.store, experiment)
    assert "neurons.png" in made.figures
    page = Path(made.path.removeprefix("file://")).read_text()
    assert "Neuron → what made it, updates 6 to 24" in page
    assert "L0N" in page


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": tiny.TINY["model"]}, "has no MLP; set model.d_mlp"),
        ({"neurons": {"windows": [[0, 7]]}}, "plans no checkpoint at step 7"),
        ({"neurons": {"windows": [[6, 6]]}}, "first before last"),
        ({"neurons": {"windows": [[0, 6], [3, 6]]}}, "an end of its own"),
        ({"neurons": ASKED | {"seeds": [9]}}, "neurons.seeds"),
    ],
)
def test_what_cannot_be_asked_is_said_when_the_experiment_is_read(change, said):
    with pytest.raises(MechError, match=said):
        tiny.spec_of(**CHANGE | change)
