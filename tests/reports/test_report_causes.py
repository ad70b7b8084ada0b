"""The section on causes: sentences, tables and pictures of a made-up programme, and what it says where there is nothing."""

import copy

import numpy as np
import pytest

from mech_pipeline.causal.arms import doses, pairs
from mech_pipeline.causal.survival import share_formed
from mech_pipeline.pipeline.comparison.comparison import compute_comparisons
from mech_pipeline.pipeline.stage import View
from mech_pipeline.reports.causes.queries import formed
from mech_pipeline.reports.causes.section import causes
from mech_pipeline.reports.drawing import figure_png
from mech_pipeline.reports.page import environment
from mech_pipeline.reports.subject import Study
from mech_pipeline.spec.experiment import parse_experiment
from mech_pipeline.store.reading import connect
from mech_pipeline.store.store import Store
from tests.support import tiny
from tests.support.report_store import MECHANISM, PNG_SIGNATURE, write

LATER = {"baseline": 0, "less": 30, "top": 90, "matched": 10, "twice": -60, "control": None}
ARMS = {
    "baseline": {},
    "less": {"choose": {"by": "influence", "share": 0.02}},
    "top": {"choose": {"by": "influence", "share": 0.05, "window": [0, 11]}},
    "matched": {"choose": {"like": "top", "alike": ["kind", "loss"]}},
    "twice": {"choose": {"by": "influence", "share": 0.05, "do": "duplicate"}},
    "control": {"data": {"plain": 1.0, "tiled": 0.0}},
}


def experiment_of(seeds):
    content = copy.deepcopy(tiny.TINY) | {
        "experiment": "demo",
        "seeds": list(range(seeds)),
        "arms": copy.deepcopy(ARMS),
    }
    content["formation"] = [{"mechanism": MECHANISM, "threshold": 1.5, "sustain": 3}]
    content["influence"] = {"mechanisms": [MECHANISM], "arms": ["baseline"], "seeds": "all"}
    return parse_experiment(content)


def study_of(folder, seeds, filled=True):
    """Formation of every run written by hand, and compared as the stage compares."""
    experiment, store = experiment_of(seeds), Store(folder)
    runs, formation, balance = [], [], []
    for spec in experiment.runs():
        runs.append((spec.run, "demo", spec.arm, spec.seed, "f" * 64, "{}", "complete", "cpu", "{}"))
        shift = LATER[spec.arm]
        step = None if shift is None else 600 + 20 * spec.seed + shift + 10 * (spec.seed % 2) * (spec.arm != "baseline")
        formation.append((spec.run, MECHANISM, step, 1000 if step is None else step - 10, step, 1.5, 3, step is None))
        if spec.arm == "matched":
            balance += [(spec.run, "loss", 2.0, 2.1, 0.02 + 0.1 * spec.seed, -0.5)]
    write(
        store, "runs", ("run", "experiment", "arm", "seed", "fingerprint", "spec", "status", "device", "versions"), runs
    )
    if filled:
        columns = ("run", "mechanism", "step", "lower", "upper", "threshold", "sustain", "censored")
        write(store, "formation", columns, formation)
        write(store, "choice_balance", ("run", "characteristic", "chosen", "matched", "difference", "before"), balance)
        compute_comparisons(View(store, experiment.runs(), {}, experiment))
    return connect(store.root), experiment


@pytest.fixture(scope="module")
def section(tmp_path_factory):
    """Of eight seeds; with the study it was made from."""
    opened, experiment = study_of(tmp_path_factory.mktemp("causes"), 8)
    with opened as connection:
        study = Study(connection, experiment, tuple(experiment.runs()))
        yield causes(study), study


def html_of(found):
    images = dict.fromkeys(found.figures, "")
    return " ".join(environment().get_template(found.template).render(found.context, images=images).split())


def test_claims_are_those_that_pass_holm_over_all_comparisons(section):
    found, study = section
    (part,) = found.context["parts"]
    assert len(pairs(study.experiment)) == 6
    assert all("p = 0.047 after Holm" in claim for claim in part.claims), "6 · 2 / 2⁸, which 8 pairs can just show"
    assert [claim.split(":")[0] for claim in part.claims] == ["less", "top", "matched", "twice", "control", "top"]
    assert (
        "top: induction_copy_advantage forms 95 updates later than in baseline (14 % of it); 8 pairs" in part.claims[1]
    )
    assert "earlier than in baseline" in part.claims[3]
    assert "at least" in part.claims[4], "the control never formed: its shift is a bound"
    assert part.power.startswith("6 comparisons, Holm over all of them.")


def test_tables_say_what_was_done_and_what_came(section):
    found, _ = section
    page = html_of(found)
    assert "leaves out the top 5 % by influence, in updates 0 to 11" in page
    assert "leaves out as many as top, alike in kind, loss, in updates 0 to 11" in page
    assert "shows twice the top 5 % by influence" in page
    assert ">0 of 8<" in page, "of the control none formed"
    assert "0.72: not balanced" in page
    assert "8, 8 bounds" in page


def test_every_picture_is_drawn_and_shows_every_seed(section):
    found, study = section
    assert {name.split(".")[0] for name in found.figures} == {"causes_when", "causes_shifts"}
    assert not doses(study.experiment), "less and top differ in more than their share"
    for figure in found.figures.values():
        assert figure_png(figure).startswith(PNG_SIGNATURE)
    (axes,) = found.figures[f"causes_shifts.{MECHANISM}.png"].axes
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    assert [len(line.get_xdata()) for line in dots] == [8] * 6
    when = found.figures[f"causes_when.{MECHANISM}.png"]
    assert [axes.get_title(loc="left") for axes in when.axes] == ["examples left out", "examples shown twice", "others"]


def test_the_stair_is_the_share_of_runs(section):
    _, study = section
    steps, shares = share_formed(formed(study, MECHANISM)["baseline"])
    assert np.array_equal(steps, [600 + 20 * seed for seed in range(8)])
    assert shares.tolist() == [0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0]


def test_one_seed_claims_nothing_and_says_so(tmp_path):
    opened, experiment = study_of(tmp_path, 1)
    with opened as connection:
        found = causes(Study(connection, experiment, tuple(experiment.runs())))
    page = html_of(found)
    assert "No shift passes: nothing is claimed." in page
    assert "With 1 pairs no shift, however large, could have come below p = 0.05" in page


def test_nothing_compared_yet_is_a_sentence(tmp_path):
    opened, experiment = study_of(tmp_path, 2, filled=False)
    with opened as connection:
        found = causes(Study(connection, experiment, tuple(experiment.runs())))
    assert found.empty
    assert "nothing has been compared yet" in html_of(found)


def test_an_experiment_in_which_nothing_is_chosen_has_nothing_to_say(tmp_path):
    experiment = parse_experiment(copy.deepcopy(tiny.TINY))
    with connect(Store(tmp_path).root) as connection:
        found = causes(Study(connection, experiment, tuple(experiment.runs())))
    assert found.empty
    assert "no arm of this experiment chooses examples" in html_of(found)
