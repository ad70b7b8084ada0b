"""Atoms as rows: every window with members and a track, found once, refused in words, nothing written then."""

import copy

import numpy as np
import pytest

from mech_pipeline.commands.discover import discover
from mech_pipeline.errors import MechError
from mech_pipeline.pipeline.cells import pending_cells
from mech_pipeline.pipeline.discovery import atoms, wanted
from mech_pipeline.pipeline.discovery.stages import ATOMS
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.reports.discovery.atoms import atoms as atoms_section
from mech_pipeline.reports.drawing import figure_png
from mech_pipeline.reports.page import environment
from mech_pipeline.reports.subject import Study
from mech_pipeline.spec.experiment import parse_experiment
from mech_pipeline.store.reading import connect
from tests.support import tiny
from tests.support.discovering import ALONE, rows
from tests.support.once import trained

CHANGE = ALONE | {"discovery": {"atoms": 2, "atom_examples": 4}}


@pytest.fixture
def run(folder, local_store):
    return trained(local_store, tiny.spec_of(**CHANGE))


def test_every_window_is_looked_at_once_and_its_atoms_have_members_and_tracks(run):
    said, seen = [], []
    assert pending_cells(run.store, wanted.wanted_atoms(run))
    assert atoms.compute_atoms(run, seen.append, said.append) == 1
    assert pending_cells(run.store, wanted.wanted_atoms(run)) == []
    assert "up to 4 atoms of 4 examples a window" in said[0]
    assert "MB in all" in said[0]
    assert len(seen) == len(run.planned) - 1
    windows = rows(run, "select * from atom_windows order by number")
    assert windows["step"].to_list() == list(run.planned[1:])
    assert windows["begin"].to_list() == list(run.planned[:-1])
    found = rows(run, "select * from atoms order by atom")
    assert found.height == windows["atoms"].sum() > 0
    assert (found["is_coherent"] == (found["coherence"] > found["by_chance_most"])).all()
    members = rows(run, "select atom, count(*) as n from atom_examples join examples using (example_id) group by atom")
    assert members["n"].to_list() == [4] * found.height, "examples of the pool"
    tracks = rows(run, "select * from atom_tracks order by track")
    assert tracks["windows"].sum() == found.height
    assert (tracks["birth"] <= tracks["peak"]).all()
    assert (tracks["peak"] <= tracks["death"]).all()
    shares = [float(part.split()[1]) for part in found["components"][0].split(", ")]
    assert 0.78 < sum(shares) < 1.01


def test_the_same_run_has_the_same_atoms(run):
    atoms.compute_atoms(run)
    first = rows(run, "select * from atom_examples order by atom, place")
    atoms.compute_atoms(run)
    assert rows(run, "select * from atom_examples order by atom, place").equals(first)


def test_what_is_not_found_any_more_is_gone(run, monkeypatch):
    atoms.compute_atoms(run)
    monkeypatch.setattr(atoms, "atoms", lambda applied, raw, most, size, generator: atoms.Found(applied, (), 0.1, 0.2))
    atoms.compute_atoms(run)
    for table in ("atoms", "atom_examples", "atom_tracks"):
        assert rows(run, f"select * from {table}").height == 0
    assert rows(run, "select * from atom_windows").height == len(run.planned) - 1


def test_windows_with_too_few_examples_are_told_and_left_out(run):
    """A window of three updates of 8 examples has 24 of them, one of six has more."""
    said = []
    few = OpenRun(run.store, asking(run.spec, atom_examples=9))
    atoms.compute_atoms(few, emit=said.append)
    assert "2 windows have none, the first because 24 examples are too few for atoms of 9" in said[1]
    assert rows(run, "select * from atom_windows").height == len(run.planned) - 3


def test_a_run_without_a_window_for_atoms_is_one_line_and_nothing_is_written(run):
    many = OpenRun(run.store, asking(run.spec, atom_examples=900))
    with pytest.raises(MechError, match="atoms of run tiny.baseline.s0: 24 examples are too few for atoms of 900"):
        atoms.compute_atoms(many)
    assert rows(run, "select * from atom_windows").height == 0


def asking(spec, **change):
    return spec.model_copy(update={"discovery": spec.discovery.model_copy(update=change)})


def test_a_run_that_did_not_move_is_one_line_and_nothing_is_written(folder, local_store):
    still = tiny.TINY["optimizer"] | {"learning_rate": 1e-45, "weight_decay": 0.0}
    run = trained(local_store, tiny.spec_of(**CHANGE | {"optimizer": still}))
    with pytest.raises(MechError, match="atoms of run tiny.baseline.s0: no weight moved"):
        atoms.compute_atoms(run)
    assert rows(run, "select * from atom_windows").height == 0


def test_gradients_that_are_no_numbers_are_one_line_and_nothing_is_written(run, monkeypatch):
    found = atoms.window_rows

    def broken(*given):
        made = found(*given)
        made.applied[2] = np.nan
        return made

    monkeypatch.setattr(atoms, "window_rows", broken)
    with pytest.raises(MechError, match="the gradients of 1 examples are no numbers"):
        atoms.compute_atoms(run)
    assert rows(run, "select * from atom_windows").height == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"optimizer": {"kind": "muon"}}, "discovery of run tiny.baseline.s0"),
        ({"training": tiny.TINY["training"] | {"precision": "bf16"}}, "discovery of run tiny.baseline.s0"),
    ],
)
def test_updates_that_cannot_be_told_apart_by_example_are_refused_when_an_experiment_is_read(change, said):
    plain = {"ledger": {}, "influence": {}}
    with pytest.raises(MechError, match=said):
        parse_experiment(copy.deepcopy(tiny.TINY) | CHANGE | plain | change).runs()


def test_the_stage_needs_moments_and_the_order_of_examples():
    assert {"moments", "order", "pool"} <= {need.value for need in ATOMS.needs}


def test_asking_for_atoms_does_not_make_discoveries_of_tokens_again(local_store, folder):
    tokens = tiny.spec_of(**CHANGE | {"discovery": {"tokens": 40}})
    run = trained(local_store, tokens)
    both = OpenRun(local_store, asking(tokens, atoms=4))
    assert wanted.wanted_discovery(run) == wanted.wanted_discovery(both)


def test_the_report_has_a_figure_and_a_row_for_each_track_that_goes_on(run):
    atoms.compute_atoms(run)
    experiment = parse_experiment(copy.deepcopy(tiny.TINY) | CHANGE)
    with connect(run.store.root) as connection:
        section = atoms_section(Study(connection, experiment, experiment.runs()))
        html = (
            environment()
            .get_template(section.template)
            .render(section.context, images=dict.fromkeys(section.figures, "data:image/png;base64,"))
        )
    (name,) = section.figures
    assert figure_png(section.figures[name])
    (part,) = section.context["parts"]
    kept = rows(run, "select count(*) as n from atom_tracks where windows > 1")["n"][0]
    assert len(part["tracks"]) == min(kept, 12)
    assert f"{kept} of " in html


def test_the_command_lists_atoms_beside_clusters(run, folder, monkeypatch, capsys):
    atoms.compute_atoms(run)
    monkeypatch.setenv("MECH_STORE", str(run.store.root))
    monkeypatch.setenv("MECH_HOME", str(folder))
    discover("tiny", every=True)
    said = capsys.readouterr().out
    count = rows(run, "select count(*) as n from atom_tracks")["n"][0]
    kept = rows(run, "select count(*) as n from atom_tracks where windows > 1")["n"][0]
    assert f"{kept} of {count} atoms of applied updates in 1 runs were found again in the next window" in said
