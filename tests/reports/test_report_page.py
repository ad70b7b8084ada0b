"""The page as a whole: complete, self-contained, and in words where something is missing."""

import html
import re
from pathlib import Path

import duckdb

from mech_pipeline.reports.answer import answer_text
from mech_pipeline.reports.drawing import figure_png
from mech_pipeline.reports.formation import queries as formation_queries
from mech_pipeline.reports.influence import queries as influence_queries
from mech_pipeline.reports.ledger import queries as ledger_queries
from mech_pipeline.reports.page import SECTIONS, Report, build_report
from mech_pipeline.spec.experiment import Experiment
from mech_pipeline.store.reading import connect
from mech_pipeline.store.store import Store
from tests.support.report_store import (
    MECHANISM,
    PNG_SIGNATURE,
    RUN,
    SCRIPT,
    SUBJECT,
    demo_experiment,
    drawn_figures,
    write_runs,
)


def test_every_axis_carries_a_unit_and_every_figure_names_n(
    connection: duckdb.DuckDBPyConnection, runs: list[str]
) -> None:
    unit = re.compile(r"\([^)]*(updates|nats|attention probability)[^)]*\)")
    for figure in drawn_figures(connection, runs):
        for axes in figure.axes:
            assert unit.search(axes.get_xlabel()), axes.get_xlabel()
            assert unit.search(axes.get_ylabel()), axes.get_ylabel()
        assert "n = " in figure.get_suptitle() + figure.axes[0].get_title(loc="left")


def test_a_figure_has_the_same_bytes_each_time(connection: duckdb.DuckDBPyConnection, runs: list[str]) -> None:
    first, second = (figure_png(drawn_figures(connection, runs)[3]) for _ in range(2))
    assert first == second


def test_report_has_every_figure_as_png_inside_the_page(report: Report) -> None:
    assert set(report.figures) == {
        "first_formation.png",
        "formation_curves.png",
        "head_scores_over_steps.png",
        "head_atlas.png",
        f"ledger_over_steps.{MECHANISM}.png",
        f"influence_over_updates.{MECHANISM}.png",
        f"influence_against_ledger.{MECHANISM}.png",
    }
    assert all(png.startswith(PNG_SIGNATURE) for png in report.figures.values())
    assert report.html.count('src="data:image/png;base64,') == len(report.figures)


def test_report_answers_from_the_numbers(report: Report) -> None:
    text = html.unescape(report.html)
    assert "Arm baseline: it formed at step 30 ± 10 in 3 of 3 evaluated seeds" in text
    assert "Arm control: it did not form within the run in any of 2 evaluated seeds" in text
    assert "50 % are plain, 50 % tiled; of all 40 examples with an influence, 50 % are plain, 50 % tiled." in text
    assert "s0: 20 (after 10); s1: 30 (after 20); s2: 40 (after 30)" in text


def test_the_answer_is_to_be_had_without_the_page(
    connection: duckdb.DuckDBPyConnection, experiment: Experiment, report: Report
) -> None:
    assert html.escape(answer_text(connection, experiment), quote=False) in report.html.replace("&#39;", "'")


def test_report_loads_nothing_and_runs_nothing(report: Report) -> None:
    assert not re.search(r"""(src|href)\s*=\s*["']?\s*(https?:)?//""", report.html)
    assert "<script" not in report.html
    assert html.escape(SCRIPT) in report.html
    assert "Does &lt;repetition&gt; make induction?" in report.html


def test_report_highlights_the_repetition_and_nothing_of_plain_text(report: Report) -> None:
    assert f"{html.escape(SCRIPT)}<mark>{html.escape(SCRIPT)}</mark></pre>" in report.html
    assert '<pre class="text">\ndef f(): <mark>def f(): </mark></pre>' in report.html
    assert '<pre class="text">\ndef f(): def f(): </pre>' in report.html


def test_sql_in_the_report_runs_as_it_stands(report: Report, connection: duckdb.DuckDBPyConnection) -> None:
    statements = re.findall(r'<pre class="sql">mech sql "(.*?)"</pre>', html.unescape(report.html))
    assert len(statements) == 4
    for statement in statements:
        assert connection.execute(statement).fetchall()


def test_empty_store_still_renders(tmp_path: Path, experiment: Experiment, runs: list[str]) -> None:
    with connect(tmp_path) as nothing:
        page = build_report(nothing, experiment)
        assert page.figures == {}
        assert "Nothing has been evaluated yet" in page.html
        assert "A ledger was asked for, but it has not been computed yet." in page.html
        assert "Influence was asked for, but it has not been computed yet." in page.html
        for frame in (
            formation_queries.results_table(nothing, runs, MECHANISM),
            ledger_queries.ledger_totals(nothing, RUN, MECHANISM),
            influence_queries.responsible_documents(nothing, SUBJECT, "ledger"),
            ledger_queries.ledger_by_component(nothing, RUN, MECHANISM),
            ledger_queries.balance(nothing, runs),
            ledger_queries.ledger_change(nothing, RUN, MECHANISM),
            influence_queries.influence_by_update(nothing, SUBJECT),
        ):
            assert frame.is_empty()
            assert frame.columns


def test_nothing_formed_gives_a_reason_instead_of_influence(tmp_path: Path, experiment: Experiment) -> None:
    store = Store(tmp_path)
    write_runs(store)
    control = experiment.model_copy(
        update={
            "arms": {"control": experiment.arms["control"]},
            "influence": experiment.influence.model_copy(update={"arms": "all"}),
        }
    )
    with connect(store.root) as opened:
        page = html.unescape(build_report(opened, control).html)
    assert "Arm control: it did not form within the run" in page
    assert "in no run it covers it happened" in page
    assert "This experiment asks for no ledger" in page


def test_every_section_has_a_heading_and_an_anchor_of_its_own(report: Report) -> None:
    headings = re.findall(r'<h2 id="([a-z]+)">', report.html)
    assert len(set(headings)) == len(headings) == len(SECTIONS) == report.html.count("<h2 id")
    assert set(re.findall(r'href="#([a-z]+)"', report.html)) <= {*headings, "contents"}


def test_the_first_page_answers_four_questions_with_a_number_each(report: Report) -> None:
    first = html.unescape(report.html).split('<p class="answer">')[0]
    assert "Does <repetition> make induction?" in first
    assert "first_formation.png" in report.figures
    large = dict(re.findall(r'<h2>(.*?)</h2>\n<p class="large"><a href="#[a-z]+">(.*?)</a>', first))
    assert large == {
        "When?": "step 30 ± 10",
        "Which head?": "L1H1",
        "Which data?": "–",
        "How sure?": "103.9 % explained",
    }
    assert "does not balance" in first
    assert first.index("Top 5 % by ledger") < first.index("Top 5 % by influence")


def test_sections_without_anything_come_last_and_folded(tmp_path: Path, experiment: Experiment, report: Report) -> None:
    shown, _, folded = report.html.partition("<hr>")
    assert '<h2 id="ledger">' in shown
    assert '<h2 id="circuits">' in folded
    assert report.html.count('<details class="nothing">') == folded.count("<details") == folded.count("<h2 id")


def test_an_experiment_without_detectors_has_no_column_of_heads(
    connection: duckdb.DuckDBPyConnection, report: Report
) -> None:
    headless = demo_experiment(detectors=[], formation=[{"mechanism": MECHANISM, "threshold": 1.0, "sustain": 1}])
    page = build_report(connection, headless).html
    assert "best head by prefix_matching at the end" in report.html
    assert "best head by" not in page
    assert "at the end ± sd" not in page
    assert "prefix" not in page
    assert "This experiment asks for no head scores" in page
