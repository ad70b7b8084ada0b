"""Results of formation: means over seeds, censored seeds, and whose best head stands beside an event."""

import duckdb
import pytest

from mech_pipeline.plain_text import readable
from mech_pipeline.reports.formation import queries as formation_queries
from mech_pipeline.reports.formation.section import detector_beside
from mech_pipeline.reports.formation.sparkline import formation_lines, sparkline
from tests.support.report_store import MECHANISM, demo_experiment, drawn_figures


def test_results_table_has_mean_and_spread_over_seeds(connection: duckdb.DuckDBPyConnection, runs: list[str]) -> None:
    baseline = formation_queries.results_table(connection, runs, MECHANISM, "prefix_matching").row(0, named=True)
    assert (baseline["arm"], baseline["n_seeds"], baseline["n_formed"], baseline["n_censored"]) == ("baseline", 3, 3, 0)
    assert baseline["seeds"] == [0, 1, 2]
    assert baseline["steps"] == [20, 30, 40]
    assert baseline["lowers"] == [10, 20, 30]
    assert (baseline["step_mean"], baseline["step_sd"]) == (30, 10)
    # 4.30265 is the 97.5 % point of Student's t with 2 degrees of freedom, from a printed table.
    assert baseline["step_high"] - 30 == pytest.approx(4.30265 * 10 / 3**0.5, rel=1e-5)
    assert 30 - baseline["step_low"] == pytest.approx(baseline["step_high"] - 30)
    assert (baseline["value_mean"], baseline["value_sd"]) == (3, 1)
    assert (baseline["head_mean"], baseline["head_sd"]) == (0.75, 0)
    headless = formation_queries.results_table(connection, runs, MECHANISM).row(0, named=True)
    assert headless == baseline | {"head_mean": None, "head_sd": None}


def test_censored_seeds_are_counted_and_not_averaged(connection: duckdb.DuckDBPyConnection, runs: list[str]) -> None:
    control = formation_queries.results_table(connection, runs, MECHANISM).row(1, named=True)
    assert (control["arm"], control["n_seeds"], control["n_formed"], control["n_censored"]) == ("control", 2, 0, 2)
    assert control["steps"] == [None, None]
    assert control["step_mean"] is None
    assert (control["value_mean"], control["value_sd"]) == (0, 0)

    mixed = formation_queries.results_table(connection, runs, "best_head:prefix_matching").row(0, named=True)
    assert (mixed["n_formed"], mixed["n_censored"]) == (1, 2)
    assert (mixed["step_mean"], mixed["step_sd"], mixed["step_low"]) == (20, None, None)
    assert mixed["value_mean"] == 0.75


def test_runs_that_left_the_experiment_stay_out(connection: duckdb.DuckDBPyConnection, runs: list[str]) -> None:
    assert formation_queries.results_table(connection, runs, MECHANISM)["arm"].to_list() == ["baseline", "control"]
    assert "demo.removed.s0" not in formation_queries.mechanism_curves(connection, runs)["run"].to_list()


def test_every_seed_is_drawn_and_formation_steps_are_marked(
    connection: duckdb.DuckDBPyConnection, runs: list[str]
) -> None:
    lines = drawn_figures(connection, runs)[0].axes[0].get_lines()
    assert sum(len(line.get_xdata()) == 5 for line in lines) == len(runs)
    dots = [line for line in lines if line.get_marker() == "o" and len(line.get_xdata())]
    assert sorted((dot.get_xdata()[0], dot.get_ydata()[0]) for dot in dots) == [(20, 2.0), (30, 3.0), (40, 4.0)]
    assert [line.get_ydata()[0] for line in lines if line.get_linestyle() == "--"] == [1.0]


def test_queries_work_while_another_result_is_open(connection: duckdb.DuckDBPyConnection, runs: list[str]) -> None:
    assert connection.execute("select run from runs").fetchone() is not None
    assert formation_queries.results_table(connection, runs, MECHANISM).height == 2


def test_the_head_beside_an_event_is_that_of_the_detector_watched_or_the_first() -> None:
    watching, head = demo_experiment().formation
    assert (watching.detector, head.detector) == (None, "prefix_matching")
    several = demo_experiment(detectors=["previous_token", "prefix_matching"])
    assert detector_beside(several, watching) == "prefix_matching"
    assert detector_beside(several, head) is None, "its final value is that of the best head"
    one_event = {"formation": [{"mechanism": MECHANISM, "threshold": 1.0}]}
    assert detector_beside(demo_experiment(**one_event), watching) == "prefix_matching"
    assert detector_beside(demo_experiment(**one_event, detectors=["previous_token"]), watching) == "previous_token"
    assert detector_beside(demo_experiment(**one_event, detectors=[]), watching) is None


def test_a_run_says_in_words_and_in_a_line_of_blocks_when_it_formed(
    connection: duckdb.DuckDBPyConnection, runs: list[str]
) -> None:
    head, formed = formation_lines(connection, runs[0])
    words, curve = formed.split("\n")
    assert words == f"{runs[0]}: {MECHANISM} formed at step 20 (at least 1 nats)"
    assert curve.split() == [
        "step",
        "0",
        sparkline([0, 10, 20, 30, 40], [0.0, 0.0, 2.0, 2.0, 2.0]),
        "40,",
        "0",
        "to",
        "2",
    ]
    assert head.startswith(f"{runs[0]}: best head by prefix_matching formed at step 20")
    (*_, censored) = formation_lines(connection, runs[-1])
    assert "did not form by step 40" in censored
    assert "▁" * 30 in censored, "a flat curve"
    assert list(formation_lines(connection, "demo.baseline.s9")) == []


def test_a_line_of_blocks_is_of_even_pieces_of_training() -> None:
    """Half of the evaluations in the last tenth take a tenth of the line."""
    line = sparkline([0, 45, 90, 92, 94, 96, 98, 100], [0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0], width=10)
    assert line == "▁" * 9 + "█"
    assert readable(line, "ascii") == "_" * 9 + "#"
