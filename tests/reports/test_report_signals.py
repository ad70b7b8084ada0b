"""The section on signals: its sentence, its tables, and that every unseen run is drawn."""

import pytest

from mech_pipeline.pipeline.stages import stage_of
from mech_pipeline.reports.drawing import figure_png
from mech_pipeline.reports.page import environment
from mech_pipeline.reports.signals import queries
from mech_pipeline.reports.signals.section import signals
from mech_pipeline.reports.subject import Study
from mech_pipeline.spec.experiment import parse_experiment
from mech_pipeline.store.reading import connect
from mech_pipeline.store.store import Store
from tests.support.planted_signals import experiment_of, plant, view_of
from tests.support.report_store import PNG_SIGNATURE
from tests.support.tiny import MINIMAL


def html_of(found):
    images = dict.fromkeys(found.figures, "")
    return " ".join(environment().get_template(found.template).render(found.context, images=images).split())


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Twelve seeds of both arms, four of them explored; two runs came out otherwise, and one negative rings."""
    store, experiment = Store(tmp_path_factory.mktemp("signals") / "store"), experiment_of()
    plant(store, experiment.runs(), {"x.none.s6", "x.event.s7"}, rings={"x.none.s8"})
    stage_of("scoring").work(view_of(store, experiment))
    with connect(store.root) as connection:
        yield Study(connection, experiment, tuple(experiment.runs()))


def test_the_claim_is_one_sentence_about_the_chosen_signal(study):
    found = signals(study)
    assert not found.empty
    assert found.context["claim"].startswith(
        "Chosen on explored runs: training_loss (a baseline). On unseen runs it announced induction_copy_advantage in 7 of 7, "
        "0.5 of its step ahead (median), and rang in 1 of 7 negative runs"
    )
    assert "not supported (INCONCLUSIVE)" in found.context["claim"], "seven events are few"
    assert "Left out: 1 runs of event arms in which it did not form, 1 of negative arms" in html_of(found)


def test_tables_hold_every_target_and_what_others_published(study):
    found = signals(study)
    assert [target for target, _ in found.context["tables"]] == ["0.01", "0.05", "0.1", "0.5"]
    (_, rows) = found.context["tables"][-1]
    assert [row["signal"] for row in rows] == ["training_loss (chosen) (baseline)", "elapsed_step (baseline)"]
    assert rows[0]["false"].startswith("1 of 7 [0.00, 0.58]")
    assert rows[0]["share"] == "0.50 [0.50, 0.50]"
    assert rows[1]["lead"] == "–", "it announces nothing"
    page = html_of(found)
    assert "41 %" in page
    assert "0.143 of 7 runs (target 0.5)" in page


def test_every_unseen_run_is_drawn(study):
    found = signals(study)
    assert set(found.figures) == {"signals_roc.png", "signals_leads.png", "signals_chosen.png"}
    for figure in found.figures.values():
        assert figure_png(figure).startswith(PNG_SIGNATURE)
    arms = found.figures["signals_chosen.png"].axes
    assert [axes.get_title(loc="left") for axes in arms] == ["event: 7 events", "none: 7 negatives"]
    assert [len(axes.lines) for axes in arms] == [8, 8], "the runs, and the threshold"
    left, right = found.figures["signals_leads.png"].axes
    assert [len(line.get_xdata()) for line in left.lines if line.get_marker() == "o"] == [7, 0]
    assert [line.get_xdata().tolist() for line in right.lines] == [[40], []]


def test_the_curve_has_the_run_on_its_axis(study):
    found = signals(study)
    (baselines,) = found.figures["signals_roc.png"].axes  # no other kind of signal is there
    line = next(line for line in baselines.lines if str(line.get_label()).startswith("training_loss"))
    assert max(line.get_xdata()) == 1.0
    rates = set(line.get_xdata().round(6))
    assert rates <= {round(k / 7, 6) for k in range(8)}, "a negative run counts once"
    dot = next(line for line in baselines.lines if line.get_marker() == "o")
    assert (dot.get_xdata()[0], dot.get_ydata()[0]) == (pytest.approx(1 / 7), 1.0)


def test_runs_in_which_a_signal_abstains_have_no_values(study):
    alarms = queries.alarms(study, 0.5)
    read = queries.courses(study, "training_loss", alarms)
    assert {arm: len(some) for arm, some in read.items()} == {"event": 7, "none": 7}


@pytest.mark.parametrize(("scored", "said"), [(True, "not all runs are there yet"), (False, "No signal")])
def test_nothing_scored_is_a_sentence(tmp_path, scored, said):
    experiment = experiment_of() if scored else parse_experiment(MINIMAL)
    with connect(Store(tmp_path).root) as connection:
        found = signals(Study(connection, experiment, tuple(experiment.runs())))
    assert found.empty
    assert said in html_of(found)
