"""Influence: sums of one estimator, kinds of examples, and what is said of its reliability."""

import html
import re
from pathlib import Path

import duckdb
import polars as pl
import pytest

from mech_pipeline.attribution.retraining.trust import Trust
from mech_pipeline.reports.answer import influence_sentences
from mech_pipeline.reports.influence import queries as influence_queries
from mech_pipeline.reports.influence.figures import rank_correlation
from mech_pipeline.reports.page import Report, build_report
from mech_pipeline.reports.subject import Subject, attributed, target_step
from mech_pipeline.spec.experiment import Experiment
from mech_pipeline.store.reading import connect
from mech_pipeline.store.store import Store
from tests.support.report_store import MECHANISM, RUN, SUBJECT, demo_experiment, write, write_attribution, write_runs


def test_influence_ranks_examples_by_their_sum_at_the_current_target_step(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    assert target_step(connection, RUN, MECHANISM) == 20
    found = influence_queries.responsible_documents(connection, SUBJECT, "influence", limit=3)
    assert found.select("example_id", "total").rows() == [("x03", 50.0), ("x00", 40.0), ("x01", 39.0)]


@pytest.mark.parametrize(("share", "tiled"), [(0.025, 0.0), (0.05, 0.5), (0.1, 0.5), (1.0, 0.5), (0.001, 0.0)])
def test_shares_of_kinds_count_distinct_examples_of_the_top(
    connection: duckdb.DuckDBPyConnection, share: float, tiled: float
) -> None:
    # In order: x03 (plain), x00 (tiled), x01 (plain), x02 (tiled), … of 40 examples.
    found = influence_queries.kind_shares(connection, SUBJECT, share)
    assert dict(found.select("kind", "top").rows()) == {"tiled": tiled, "plain": 1 - tiled}
    assert dict(found.select("kind", "everything").rows()) == {"tiled": 0.5, "plain": 0.5}
    assert found["bottom"].sum() == pytest.approx(1)
    assert found["n"].to_list() == [20, 20]
    assert found["top"].is_sorted(descending=True)
    assert influence_queries.kind_shares(connection, Subject("demo.baseline.s1", MECHANISM, 20), share).is_empty()


def test_shares_of_kinds_are_given_at_both_ends(connection: duckdb.DuckDBPyConnection) -> None:
    found = influence_queries.kind_shares(connection, SUBJECT, 0.05)
    assert dict(found.select("kind", "bottom").rows()) == {"tiled": 0.5, "plain": 0.5}, "of 40, x39 and x38 are last"
    found = influence_queries.kind_shares(connection, SUBJECT, 0.025)
    assert dict(found.select("kind", "bottom").rows()) == {"tiled": 0.0, "plain": 1.0}


def test_influence_is_averaged_over_bins_of_updates(connection: duckdb.DuckDBPyConnection) -> None:
    rows = influence_queries.influence_by_update(connection, SUBJECT, bins=2).rows(named=True)
    (late,) = [row for row in rows if row["update_step"] == 15]
    assert (late["kind"], late["mean_signed"], late["mean_absolute"], late["n"]) == ("plain", 25.0, 25.0, 1)
    assert {row["update_step"] for row in rows} == {5, 15}
    assert influence_queries.adjoint_norms(connection, SUBJECT).rows() == [(0, 45.0), (15, 0.5)]


def test_influence_and_ledger_are_compared_example_by_example(connection: duckdb.DuckDBPyConnection) -> None:
    both = influence_queries.influence_against_ledger(connection, SUBJECT)
    assert both.rows() == [
        ("x00", "tiled", 1.875, 40.0),
        ("x01", "plain", -0.3125, 39.0),
        ("x02", "tiled", 4.0, 38.0),
    ]
    # Ranks 2, 1, 3 against 3, 2, 1: rho = 1 − 6 · (1 + 1 + 4) / (3 · 8).
    assert rank_correlation(both) == "Spearman ρ = -0.50 (n = 3 examples)"
    flat = both.with_columns(influence=pl.lit(1.0))
    assert rank_correlation(flat) == "Spearman ρ undefined (n = 3 examples)"


def test_unreliable_influence_is_called_so_wherever_it_is_spoken_of(report: Report) -> None:
    shares = pl.DataFrame(
        {"kind": ["tiled", "plain"], "n": [20, 20], "top": [1.0, 0.0], "bottom": [0.8, 0.2], "everything": [0.5, 0.5]}
    )
    for known in (shares, shares[:1]):
        assert "marked not reliable" in influence_sentences(SUBJECT, known, Trust(False, retrained=False))
        assert "has not been measured" in influence_sentences(SUBJECT, known, Trust(None, retrained=False))
        assert "did not confirm it" in influence_sentences(SUBJECT, known, Trust(False, retrained=True))
    assert "do not draw conclusions" not in report.html


def write_cheap(store: Store) -> None:
    """Scores of a cheaper estimator, which order the examples the other way round."""
    columns = ("step", "update_step", "example_id", "value", "run", "mechanism", "method")
    rows = [(20, 0, f"x{i:02d}", 1000.0 * i, RUN, MECHANISM, "gradient_dot") for i in range(40)]
    write(store, "influence", columns, rows, run=[RUN], method=["gradient_dot"])


def test_scores_of_other_estimators_are_added_to_nothing(
    local_store: Store, connection: duckdb.DuckDBPyConnection, experiment: Experiment, report: Report
) -> None:
    write_runs(local_store)
    write_attribution(local_store)
    write_cheap(local_store)
    with connect(local_store.root) as several:
        found = build_report(several, experiment)
        statements = re.findall(r'<pre class="sql">mech sql "(.*?)"</pre>', html.unescape(found.html))
        both = several.execute("select sum(value) from influence where step = 20").fetchall()
        assert both != connection.execute("select sum(value) from influence where step = 20").fetchall()
        for statement in statements:
            assert several.execute(statement).fetchall() == connection.execute(statement).fetchall()
    assert "from influence" in statements[-1]
    assert found.html == report.html
    assert found.figures == report.figures


def test_cheap_estimators_alone_are_not_shown_as_the_exact_influence(local_store: Store) -> None:
    write_runs(local_store)
    write_cheap(local_store)
    cheap = demo_experiment(influence={"mechanisms": [MECHANISM], "methods": ["gradient_dot"]})
    with connect(local_store.root) as opened:
        assert attributed(opened, "influence", [RUN]) == []
        page = build_report(opened, cheap).html
    assert "This experiment asks for cheap estimators only" in page


@pytest.mark.slow
def test_kinds_are_those_of_the_examples_whatever_they_are(tmp_path: Path, experiment: Experiment) -> None:
    pages = {}
    for kinds in (("names", "lists"), ("names", "names")):
        store = Store(tmp_path / kinds[1])
        write_runs(store)
        write_attribution(store, kinds)
        with connect(store.root) as opened:
            pages[kinds[1]] = html.unescape(build_report(opened, experiment).html)
    assert (
        "50 % are lists, 50 % names; of all 40 examples with an influence, 50 % are lists, 50 % names."
        in pages["lists"]
    )
    assert '<td>names</td><td class="number">20</td><td class="number">50 %</td>' in pages["lists"]
    assert "share of the 5 %" not in pages["names"], "of one kind alone there is nothing to say"
    assert "Of the 5 % of examples" not in pages["names"]
    assert f"For influence on {MECHANISM} at step 20 of run {RUN}: " in pages["names"]
