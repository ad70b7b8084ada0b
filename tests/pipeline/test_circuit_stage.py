"""Circuits as rows: computed once, again only when something changed, and shown in the report."""

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import torch

from mech_pipeline.data.corpora import corpus_sha256, read_corpus
from mech_pipeline.errors import MechError
from mech_pipeline.mechanisms.circuits.circuit import Curve
from mech_pipeline.mechanisms.registry import MECHANISMS
from mech_pipeline.mechanisms.tasks.induction import without_repetition
from mech_pipeline.pipeline.analysis import analysis, circuits
from mech_pipeline.pipeline.analysis import wanted as analysis_cells
from mech_pipeline.pipeline.plan import ready_stages
from mech_pipeline.pipeline.report import make_report
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.pipeline.training.batches import write_batches
from mech_pipeline.reports.circuits import queries as circuit_queries
from mech_pipeline.spec.experiment import parse_experiment
from mech_pipeline.store.reading.connection import connect
from mech_pipeline.store.reading.query import query
from mech_pipeline.store.store import Store
from tests.support import tiny
from tests.support.once import trained

pytestmark = pytest.mark.slow

COPY, RANDOM = "induction_copy_advantage", "induction_copy_advantage_random"
ASKED = {"mechanisms": [COPY], "every": 12, "random_orders": 2}
CHANGE = {"mechanisms": [COPY, RANDOM, "previous_token_attention"], "circuits": ASKED, "influence": {}, "ledger": {}}


@pytest.fixture
def run(folder, local_store):
    return trained(local_store, tiny.spec_of(**CHANGE))


def test_circuits_are_computed_once_where_they_are_asked_for(run):
    seen = []
    assert tiny.places(analysis_cells.pending_circuits(run, run.planned)) == [(0, COPY), (12, COPY), (24, COPY)]
    assert circuits.compute_circuits(run, run.planned, seen.append) == 3
    assert seen == [[0], [12], [24]]
    assert analysis_cells.pending_circuits(run, run.planned) == []
    assert circuits.compute_circuits(run, run.planned, seen.append) == 0
    assert seen[-1] == [0, 12, 24]

    edges = query(run.store.root, "select * from circuits order by step, place")
    graph = 2 * 3 * 1 + 2 * 3 * 3 + 5  # two heads in each of two layers, no MLPs
    assert edges.group_by("step").len()["len"].to_list() == [graph] * 3
    for (_,), rows in edges.group_by(["step"]):
        assert rows["place"].to_list() == list(range(graph))
        kept = rows["in_circuit"].to_list()
        assert kept == sorted(kept, reverse=True), "a circuit is a beginning of the order"
    assert edges["again"].null_count() == edges.height, "sequences of the run's probe are drawn once"

    ends = "select distinct faithfulness from circuit_curves where edges = {} "
    assert query(run.store.root, ends.format(0))["faithfulness"].to_list() == [0.0]
    assert query(run.store.root, ends.format(graph))["faithfulness"].to_list() == pytest.approx([1.0])
    values = "select value from circuit_curves where edges = {} and ordering = 'random 1' order by step"
    whole = query(run.store.root, values.format(graph))["value"].to_list()
    analysis.analyse(run, ["mechanism_values"], run.planned)
    stored = query(run.store.root, f"select value from mechanism_values where mechanism = '{COPY}' and step % 12 = 0")
    assert whole == pytest.approx(stored["value"].to_list(), abs=1e-5), "all edges: the model as it is"


def test_only_what_changed_is_computed_again(run, monkeypatch):
    circuits.compute_circuits(run, run.planned)
    both = OpenRun(run.store, tiny.spec_of(**CHANGE | {"circuits": ASKED | {"mechanisms": [COPY, RANDOM]}}))
    assert tiny.places(analysis_cells.pending_circuits(both, both.planned)) == [(step, RANDOM) for step in (0, 12, 24)]
    assert circuits.compute_circuits(both, [12]) == 1
    more = OpenRun(run.store, tiny.spec_of(**CHANGE | {"circuits": ASKED | {"random_orders": 3}}))
    assert len(analysis_cells.pending_circuits(more, more.planned)) == 3
    monkeypatch.setitem(MECHANISMS.loaded(), COPY, replace(MECHANISMS[COPY], version="other"))
    assert len(analysis_cells.pending_circuits(run, run.planned)) == 3


def test_a_kill_between_the_two_tables_leaves_the_cell_to_be_computed(run, monkeypatch):
    write = Store.write

    def killed(store, table, *arguments, **named):
        if table == "circuits":
            raise KeyboardInterrupt
        return write(store, table, *arguments, **named)

    monkeypatch.setattr(Store, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        circuits.compute_circuits(run, run.planned)
    monkeypatch.setattr(Store, "write", write)
    assert query(run.store.root, "select distinct step from circuit_curves").rows() == [(0,)]
    assert circuits.compute_circuits(run, run.planned) == 3


def test_areas_in_sql_are_those_of_the_curves(run):
    circuits.compute_circuits(run, [24])
    with connect(run.store.root) as connection:
        areas = circuit_queries.circuit_areas(connection, [run.spec.run])
        lines = circuit_queries.faithfulness_curves(connection, run.spec.run, COPY)
    assert areas["ordering"].to_list() == ["attributed", "random 0", "random 1"]
    for row in areas.iter_rows(named=True):
        line = lines.filter(pl.col("ordering") == row["ordering"])
        made = Curve(line["edges"].to_list(), line["faithfulness"].to_list())
        assert (row["cpr"], row["cmd"]) == pytest.approx((made.cpr, made.cmd))


def test_the_plan_and_the_report_know_circuits(run):
    sha256 = corpus_sha256(read_corpus(run.spec.corpus))
    write_batches(run.store, run.spec)
    assert ready_stages(run.store, run.spec, sha256)["circuits"] == 3
    analysis.analyse(run, analysis_cells.OUTPUTS, run.planned)
    experiment = parse_experiment(tiny.TINY | CHANGE | {"arms": {"baseline": {}}, "seeds": [0]})
    before = make_report(run.store, experiment)
    circuits.compute_circuits(run, run.planned)
    after = make_report(run.store, experiment)
    drawn = {f"circuits_{COPY}.png", f"circuit_graphs_{COPY}.png", f"circuit_criteria_{COPY}.png"}
    assert drawn <= set(after.figures) - set(before.figures)
    page = Path(after.path.removeprefix("file://")).read_text()
    assert "CMD of random orders" in page
    assert "largest incompleteness" in page
    assert "→ logits" in page


def test_what_has_no_circuits_is_said_when_the_experiment_is_read():
    with pytest.raises(MechError, match=r"previous_token_attention has no corrupted data.*induction_copy_advantage"):
        tiny.spec_of(**CHANGE | {"circuits": {"mechanisms": ["previous_token_attention"]}})
    with pytest.raises(MechError, match="a key and a value for each head"):
        tiny.spec_of(
            **CHANGE
            | {"model": {"family": "llama", "layers": 1, "heads": 2, "kv_heads": 1, "d_model": 16, "d_mlp": 16}}
        )
    with pytest.raises(MechError, match="circuits.seeds"):
        tiny.spec_of(**CHANGE | {"circuits": ASKED | {"seeds": [9]}})


def test_a_run_that_asks_for_none_is_the_run_it_was():
    plain = tiny.spec_of()
    assert "circuits" not in plain.model_dump_json()
    assert plain.fingerprint("x") == tiny.spec_of(1 - 1).fingerprint("x")


def test_shuffled_copies_keep_their_tokens_and_repeat_nothing(run):
    sequences = run.tokens.probe.random
    shuffled = without_repetition(sequences)
    for clean, other, period in zip(sequences.tokens, shuffled, sequences.period.tolist(), strict=True):
        for begin in range(0, len(clean), period):
            part = slice(begin, begin + period)
            assert clean[part].sort().values.tolist() == other[part].sort().values.tolist()
    copies = (sequences.tokens != shuffled).any(1)
    assert copies.all()
    assert torch.equal(shuffled, without_repetition(sequences)), "the same at every call"
