"""A look at the store: each question once, of all runs together."""

from collections import Counter

import pytest

from mech_pipeline.data.corpora import corpus_sha256, read_corpus
from mech_pipeline.pipeline import cells
from mech_pipeline.pipeline.cells import stored_versions
from mech_pipeline.pipeline.found import FoundRun
from mech_pipeline.pipeline.grid import request_zoom, zooms
from mech_pipeline.pipeline.look import one_look
from mech_pipeline.pipeline.plan import Plan
from mech_pipeline.pipeline.training.batches import write_batches
from mech_pipeline.store.store import Store
from tests.support import tiny
from tests.support.once import trained


@pytest.fixture
def specs(tmp_path, monkeypatch):
    tiny.write_text(tmp_path)
    monkeypatch.chdir(tmp_path)
    return [tiny.spec_of(index) for index in range(3)]


@pytest.fixture
def asked(monkeypatch):
    """Tables by how often they were opened."""
    counts = Counter()
    opened = Store.reading

    def counting(self, *tables, of=None):
        counts.update(tables)
        return opened(self, *tables, of=of)

    monkeypatch.setattr(Store, "reading", counting)
    return counts


def look(store, specs):
    plan = Plan(store, specs, {spec.run: corpus_sha256(read_corpus(spec.corpus)) for spec in specs})
    plan.look()
    return [plan.ready(spec.run) for spec in specs]


def prepared(store, specs):
    """Of runs that are not trained yet: a plan that has looked, and one that has not."""
    for spec in specs:
        tiny.prepare(store, spec)
    corpora = {spec.run: corpus_sha256(read_corpus(spec.corpus)) for spec in specs}
    plan, afresh = Plan(store, specs, corpora), Plan(store, specs, corpora)
    plan.look()
    return plan, afresh


def test_a_plan_of_many_runs_opens_no_table_more_often_than_that_of_one(local_store, specs, asked):
    first, *others = specs
    trained(local_store, first)
    write_batches(local_store, first)
    for other in others:
        tiny.prepare(local_store, other)
    asked.clear()
    alone = look(local_store, [first])
    of_one = Counter(asked)
    asked.clear()
    together = look(local_store, specs)
    assert asked == of_one
    assert together[0] == alone[0]
    assert "analysis" in together[0]
    assert [list(ready) for ready in together[1:]] == [["training"], ["training"]]


def test_a_look_at_one_run_asks_about_no_other_and_finds_the_same(local_store, specs, monkeypatch):
    plan, afresh = prepared(local_store, specs)
    trained(local_store, specs[1])
    write_batches(local_store, specs[1])
    asked, read = set(), cells._read_versions

    def noting(store, name, runs):
        asked.update(runs)
        return read(store, name, runs)

    monkeypatch.setattr(cells, "_read_versions", noting)
    plan.look(specs[1].run)
    assert asked == {specs[1].run}
    afresh.look()
    assert [plan.ready(spec.run) for spec in specs] == [afresh.ready(spec.run) for spec in specs]
    assert [list(plan.ready(spec.run)) for spec in specs] == [["training"], ["analysis"], ["training"]]


def test_a_look_at_some_runs_opens_no_table_more_often_than_that_at_one(local_store, specs, asked):
    plan, afresh = prepared(local_store, specs)
    for spec in specs[:2]:
        trained(local_store, spec)
        write_batches(local_store, spec)
    asked.clear()
    plan.look(specs[0].run)
    of_one = Counter(asked)
    asked.clear()
    plan.look(specs[0].run, specs[1].run)
    assert asked == of_one
    afresh.look()
    assert [plan.ready(spec.run) for spec in specs] == [afresh.ready(spec.run) for spec in specs]
    assert ["analysis" in plan.ready(spec.run) for spec in specs] == [True, True, False]


def test_in_a_look_what_others_write_is_not_seen_and_after_it_is(local_store, specs):
    run, other = specs[0], specs[1]
    with one_look([run.run]):
        assert zooms(local_store, run.run) == []
        request_zoom(local_store, run, 2, 4)
        request_zoom(local_store, other, 3, 5)
        assert zooms(local_store, run.run) == []
        assert zooms(local_store, other.run) == [(3, 5, 1)], "nobody had asked about it"
    assert zooms(local_store, run.run) == [(2, 4, 1)]


def test_a_look_inside_of_a_look_is_that_one(local_store, specs, asked):
    run = specs[0].run
    with one_look([run]):
        stored_versions(local_store, "tokens", run)
        with one_look([run]):
            stored_versions(local_store, "tokens", run)
        stored_versions(local_store, "tokens", run)
    assert asked == {"tokens": 1}
    stored_versions(local_store, "tokens", run)
    assert asked == {"tokens": 2}, "it has ended"


def test_a_run_is_found_with_one_reading_of_each_table_and_question(local_store, specs, asked):
    trained(local_store, specs[0])
    asked.clear()
    found = FoundRun(local_store, specs[0])
    assert asked == {"tokens": 1, "checkpoints": 2}, "versions, and where the files are"
    assert list(found.checkpoints) == list(specs[0].checkpoint_steps())


def test_cells_of_runs_that_are_read_together_stay_apart(local_store, specs):
    names = [spec.run for spec in specs]
    for spec in specs[:2]:
        tiny.prepare(local_store, spec)
    apart = {run: stored_versions(local_store, "tokens", run) for run in names}
    with one_look(names):
        together = {run: stored_versions(local_store, "tokens", run) for run in names}
    assert together == apart
    assert [bool(found) for found in apart.values()] == [True, True, False]
