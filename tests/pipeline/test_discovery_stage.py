"""Loss changes of probe tokens and what is found in them as rows: whole windows, balanced, only what changed, refused in words."""

import copy
from collections import defaultdict
from itertools import pairwise

import numpy as np
import pytest
import torch

from mech_pipeline.commands.discover import discover
from mech_pipeline.discovery.movement import Movement
from mech_pipeline.discovery.needs import parts_of
from mech_pipeline.discovery.probe_tokens import ProbeTokens
from mech_pipeline.errors import MechError
from mech_pipeline.pipeline.cells import pending_cells
from mech_pipeline.pipeline.discovery import discovery, movement, wanted
from mech_pipeline.pipeline.discovery import needs as by_needs
from mech_pipeline.pipeline.discovery.probe import DrawnTokens, draw_tokens
from mech_pipeline.pipeline.discovery.stages import DISCOVERY, MOVEMENT
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.pipeline.stage import FIRST_ROWS, View
from mech_pipeline.reports.discovery.queries import cluster_curves, token_map
from mech_pipeline.reports.discovery.section import discovery as discovery_section
from mech_pipeline.reports.drawing import figure_png
from mech_pipeline.reports.page import environment
from mech_pipeline.reports.subject import Study
from mech_pipeline.spec.experiment import parse_experiment
from mech_pipeline.store.reading import connect
from tests.support import tiny
from tests.support.discovering import ALONE, rows
from tests.support.once import trained

ASKED = {"tokens": 40, "smallest": 5}
CHANGE = ALONE | {"discovery": ASKED}


@pytest.fixture
def run(folder, local_store):
    return trained(local_store, tiny.spec_of(**CHANGE))


def test_windows_are_computed_once_and_every_token_balances(run):
    seen, said = [], []
    ends = [step for step in run.planned if step > 0]
    assert movement.compute_movement(run, run.planned, seen.append, emit=said.append) == len(ends)
    assert [step for steps in seen for step in steps] == ends
    assert movement.compute_movement(run, run.planned) == 0
    assert len(said) == 1
    assert "40 probe tokens" in said[0]
    assert "MB in all" in said[0]
    found = rows(run, "select *, loss - loss_before as change from token_losses")
    assert found.height == len(ends) * 40
    assert (found["explained"] - found["change"]).abs().max() < 1e-5
    summed = rows(run, "select step, probe_token, sum(value::double) as total from token_movement group by all")
    both = found.join(summed, on=["step", "probe_token"])
    assert (both["total"] - both["change"]).abs().max() < 1e-5
    assert both["change"].abs().max() > 0.1


def test_what_was_found_is_stored_with_every_token_and_found_once(run, monkeypatch):
    monkeypatch.setattr(discovery, "clusters", lambda paths, *how: np.arange(len(paths)) % 3 - 1)
    movement.compute_movement(run, run.planned)
    assert pending_cells(run.store, wanted.wanted_discovery(run))
    assert discovery.compute_discovery(run) == 1
    assert [c for c in wanted.wanted_discovery(run) if c not in wanted.stored_versions(run.store, c.table, c.run)] == []
    tokens = rows(run, "select * from discovery_tokens order by probe_token")
    assert tokens.height == 40
    drawn = draw_tokens(run.spec, run.tokens.probe.origin)
    for row, ids, at in zip(
        tokens.iter_rows(named=True), drawn.probe.tokens.tolist(), drawn.probe.position.tolist(), strict=True
    ):
        assert row["token_ids"] == " ".join(map(str, ids[: at + 1]))
        assert row["position"] == at
        assert row["kind"] in ("tiled", "plain")
        assert not (row["repeated"] and row["kind"] == "plain")
    assert tokens.filter(tokens["kind"] == "tiled").height == 30, "the shares are the pool's"
    clusters = rows(run, "select * from discoveries order by cluster")
    assert clusters["tokens"].to_list() == [tokens.filter(tokens["cluster"] == number).height for number in (0, 1)]
    assert (clusters["looking_low"] <= clusters["looking_high"]).all()
    monkeypatch.setattr(discovery, "clusters", lambda paths, *how: np.full(len(paths), -1))
    discovery.compute_discovery(run)
    assert rows(run, "select * from discoveries").height == 0, "what is not found any more is gone"
    assert rows(run, "select * from discovery_tokens where cluster is not null").height == 0


def test_the_report_has_a_card_for_each_cluster_and_a_figure(run, monkeypatch):
    movement.compute_movement(run, run.planned)
    monkeypatch.setattr(discovery, "clusters", lambda paths, *how: np.arange(len(paths)) % 3 - 1)
    discovery.compute_discovery(run)
    experiment = parse_experiment(copy.deepcopy(tiny.TINY) | CHANGE)
    with connect(run.store.root) as connection:
        section = discovery_section(Study(connection, experiment, experiment.runs()))
        html = environment().get_template(section.template).render(section.context, images=defaultdict(str))
        curves = cluster_curves(connection, run.spec.run)
        places = token_map(connection, run.spec.run)
    assert list(section.figures) == ["discovery_tiny.baseline.s0.png"]
    assert figure_png(section.figures["discovery_tiny.baseline.s0.png"])
    (part,) = section.context["parts"]
    assert len(part["cards"]) == 2
    assert all(len(card["examples"]) == 6 for card in part["cards"])
    assert "0.75 nats" in html
    assert html.count("<mark>") == 12
    assert curves.filter(cluster=0)["step"].to_list() == list(run.planned)
    change = rows(run, "select sum(loss_first - loss_last) as total from discovery_tokens")["total"][0]
    assert places["looking"].sum() + places["otherwise"].sum() == pytest.approx(change, abs=1e-3)


def test_the_command_ranks_what_formed_and_writes_a_cluster_as_a_mechanism(run, folder, monkeypatch, capsys):
    movement.compute_movement(run, run.planned)
    monkeypatch.setattr(discovery, "clusters", lambda paths, *how: np.arange(len(paths)) % 3 - 1)
    discovery.compute_discovery(run)
    monkeypatch.setenv("MECH_STORE", str(run.store.root))
    monkeypatch.setenv("MECH_HOME", str(folder))
    discover("tiny", every=True)
    said = capsys.readouterr().out
    assert "0 of 2 clusters in 1 runs are discoveries" in said
    assert "0 (no discovery)" in said
    discover("tiny", write="tiny.baseline.s0/1")
    assert "mechanisms: [found_tiny_baseline_s0_1]" in capsys.readouterr().out
    written = (folder / "mechanisms" / "found_tiny_baseline_s0_1.py").read_text()
    ids = rows(run, "select token_ids from discovery_tokens where cluster = 1 order by probe_token")["token_ids"]
    assert all(f"    {each}\n" in written for each in ids)
    with pytest.raises(MechError, match="there is no cluster tiny.baseline.s0/7"):
        discover("tiny", write="tiny.baseline.s0/7")
    with pytest.raises(MechError, match="experiment other has no discoveries"):
        discover("other")


def test_the_first_rows_that_the_ui_shows_are_sql_that_can_be_asked(run):
    movement.compute_movement(run, run.planned)
    discovery.compute_discovery(run)
    for stage in (MOVEMENT, DISCOVERY):
        sql = stage.outputs[0].rows.replace("$run", f"'{run.spec.run}'").replace("$$", "(3, 6)")
        assert rows(run, sql).height <= 2 * FIRST_ROWS


def test_probe_tokens_are_held_out(run):
    held = run.tokens.probe.origin.held_out
    text = [set(pairwise(d.tolist())) for d in map(held.corpus.tokens_of, np.flatnonzero(held.chosen).tolist())]
    drawn = draw_tokens(run.spec, run.tokens.probe.origin)
    plain = [ids for ids, kind in zip(drawn.probe.tokens.tolist(), drawn.groups, strict=True) if kind == "plain"]
    assert plain
    for ids in plain:
        assert any(set(pairwise(ids)) <= pairs for pairs in text)


@pytest.mark.parametrize("path", ["chord", "pieces"])
def test_straight_lines_sum_to_the_same_and_are_other_cells(run, path):
    movement.compute_movement(run, run.planned)
    before = rows(run, "select step, probe_token, explained from token_losses")
    spec = run.spec.model_copy(update={"discovery": run.spec.discovery.model_copy(update={"path": path})})
    line = OpenRun(run.store, spec)
    assert movement.compute_movement(line, line.planned) == len(line.planned) - 1
    after = rows(run, "select step, probe_token, explained as line from token_losses")
    both = before.join(after, on=["step", "probe_token"])
    assert both.height == before.height
    assert (both["explained"] - both["line"]).abs().max() < 2e-5


@pytest.mark.slow
def test_a_window_that_does_not_balance_is_refused_and_nothing_of_it_is_stored(run, monkeypatch):
    monkeypatch.setattr(Movement, "balanced", property(lambda moved: moved.error < 0))
    with pytest.raises(MechError, match="miss their measured change"):
        movement.compute_movement(run, [3])
    assert rows(run, "select * from token_losses").height == 0


def test_too_few_tokens_for_its_clusters_are_one_line_and_nothing_is_written(local_store, folder):
    spec = tiny.spec_of(**CHANGE | {"discovery": {"tokens": 12, "smallest": 5}})
    run = trained(local_store, spec)
    movement.compute_movement(run, run.planned)
    with pytest.raises(MechError, match="12 probe tokens are too few for clusters of 5"):
        discovery.compute_discovery(run)
    assert rows(run, "select * from discovery_tokens").height == 0


def test_more_tokens_than_held_out_text_has_are_refused_in_words(run):
    many = run.spec.model_copy(update={"discovery": run.spec.discovery.model_copy(update={"tokens": 99_000})})
    with pytest.raises(MechError, match="held-out text of run tiny.baseline.s0 does not give 99000 probe tokens"):
        draw_tokens(many, run.tokens.probe.origin)


def test_what_is_not_asked_for_changes_no_fingerprint():
    plain = parse_experiment(copy.deepcopy(tiny.TINY))
    assert "discovery" not in plain.model_dump()
    asked = parse_experiment(copy.deepcopy(tiny.TINY) | {"discovery": ASKED | {"seeds": [1]}})
    assert ["discovery" in spec.model_dump() for spec in asked.runs()] == [False, True, False]


def test_what_tokens_need_is_looked_at_without_movement_and_shown(folder, local_store, monkeypatch):
    monkeypatch.setattr("mech_pipeline.discovery.needs.LEAST", 0.0)  # a run of some updates has learnt no order
    asked = ALONE | {"discovery": ASKED | {"by": "needs"}}
    run = trained(local_store, tiny.spec_of(**asked))
    view = View(local_store, (run.spec,), {}, None)
    assert not MOVEMENT.is_asked(view)
    assert DISCOVERY.is_asked(view)
    seen, said = [], []
    groups = np.arange(100_000)
    monkeypatch.setattr(by_needs, "clusters_of_needs", lambda needs, smallest: groups[: len(needs)] % 3 - 1)
    assert pending_cells(run.store, wanted.wanted_discovery(run))
    assert by_needs.compute_needs(run, seen.append, said.append) == 1
    assert seen == list(range(1, len(run.planned) + 1))
    assert "heads and MLPs; holds up to " in said[0], "memory is stated before it begins"
    assert not pending_cells(run.store, wanted.wanted_discovery(run))
    found = rows(run, "select * from discoveries order by cluster")
    assert found.height == 2
    tokens = rows(run, "select * from discovery_tokens order by probe_token")
    assert found["tokens"].to_list() == [tokens.filter(tokens["cluster"] == each).height for each in (0, 1)]
    courses = rows(run, "select * from cluster_courses")
    assert set(courses["measure"]) == {"loss", "order", *needs_parts(run)}
    at_end = courses.filter(measure="loss", step=run.planned[-1], cluster=0)["value"][0]
    assert at_end == pytest.approx(tokens.filter(cluster=0)["loss_last"].mean(), abs=1e-5)
    experiment = parse_experiment(copy.deepcopy(tiny.TINY) | asked)
    with connect(run.store.root) as connection:
        section = discovery_section(Study(connection, experiment, experiment.runs()))
        html = environment().get_template(section.template).render(section.context, images=defaultdict(str))
    assert "writes its mean everywhere" in html
    assert figure_png(section.figures["discovery_tiny.baseline.s0.png"])
    monkeypatch.setenv("MECH_STORE", str(run.store.root))
    monkeypatch.setenv("MECH_HOME", str(folder))
    discover("tiny", write="tiny.baseline.s0/0")
    written = (folder / "mechanisms" / "found_tiny_baseline_s0_0.py").read_text()
    assert "MECHANISM = order_mechanism(" in written, "its loss may fall for other reasons"
    monkeypatch.setattr(by_needs, "clusters_of_needs", lambda needs, smallest: np.full(len(needs), -1))
    by_needs.compute_needs(run)
    assert rows(run, "select * from discoveries").height == 0
    assert rows(run, "select * from cluster_courses").height == 0


def test_where_no_token_needs_an_order_nothing_is_found_and_that_is_said(folder, local_store, monkeypatch):
    monkeypatch.setattr("mech_pipeline.discovery.needs.LEAST", 1e9)
    run, said = trained(local_store, tiny.spec_of(**ALONE | {"discovery": ASKED | {"by": "needs"}})), []
    assert by_needs.compute_needs(run, emit=said.append) == 1
    assert "fewer than 20 tokens need the order of what came before them" in said[-1]
    assert rows(run, "select cluster from discovery_tokens")["cluster"].to_list() == [None], (
        "the one that needs it most"
    )
    assert not pending_cells(run.store, wanted.wanted_discovery(run)), "and it is not looked again"
    assert rows(run, "select * from discoveries").height == 0


def test_examples_without_an_order_to_change_are_refused(run):
    short = torch.zeros(5, 3, dtype=torch.long)
    drawn = DrawnTokens(ProbeTokens(short, torch.ones(5, dtype=torch.long)), ["plain"] * 5, np.zeros(5, dtype=np.int64))
    with pytest.raises(MechError, match="no context that could have another order"):
        by_needs.look_at(run, drawn)


def needs_parts(run):
    return {part.name for part in parts_of(run.trainer.flat.model, run.spec.model.heads)}
