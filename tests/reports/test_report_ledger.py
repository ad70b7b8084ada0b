"""Sums of the ledger, done by hand."""

import duckdb
import polars as pl
import pytest

from mech_pipeline.reports.influence import queries as influence_queries
from mech_pipeline.reports.ledger import queries as ledger_queries
from mech_pipeline.reports.page import Report
from tests.support.report_store import MECHANISM, RUN, SUBJECT


def test_ledger_ranks_examples_by_what_they_did_before_the_target_step(connection: duckdb.DuckDBPyConnection) -> None:
    found = influence_queries.responsible_documents(connection, SUBJECT, "ledger", limit=10)
    # x01's 8.0 comes from update 25, after the target step 20; x00's total includes its 0.125 through momentum.
    assert found.select("example_id", "total", "times_seen").rows() == [
        ("x02", 4.0, 1),
        ("x00", 0.5 + 0.125 + 0.25 + 1.0, 2),
        ("x01", -0.25 - 0.0625, 0),
    ]
    assert found.row(1, named=True)["document"] == "module_0.py"


def test_balance_sums_partitions_and_takes_the_largest_errors(
    connection: duckdb.DuckDBPyConnection, runs: list[str]
) -> None:
    (row,) = ledger_queries.balance(connection, runs).rows(named=True)
    assert (row["change"], row["explained"], row["n_partitions"]) == (12.9375, 13.4375, 3)
    assert row["imbalance"] == pytest.approx(0.5 / 12.9375)
    assert (row["update_error"], row["example_error"]) == (2e-7, 3e-7)


def test_ledger_totals_leave_nothing_out(connection: duckdb.DuckDBPyConnection) -> None:
    rows = ledger_queries.ledger_totals(connection, RUN, MECHANISM).rows(named=True)
    totals = {(row["term"], row["kind"]): row for row in rows}
    assert set(totals) == {("example", "tiled"), ("example", "plain"), ("weight_decay", None), ("momentum", None)}
    assert (totals["example", "tiled"]["value"], totals["example", "tiled"]["value_later"]) == (5.75, 0.125)
    assert totals["example", "tiled"]["n_examples"] == 2
    assert sum(row["value"] for row in totals.values()) == 13.4375
    assert sum(row["value_later"] for row in totals.values()) == totals["momentum", None]["value"]


@pytest.mark.parametrize("limit", [1, 10])
def test_lines_of_the_ledger_sum_to_what_it_explains_at_every_step(
    connection: duckdb.DuckDBPyConnection, limit: int
) -> None:
    explained = [(0, 0.0), (10, 0.375), (20, 5.4375), (30, 13.4375)]
    by_component = ledger_queries.ledger_by_component(connection, RUN, MECHANISM, limit)
    for frame in (by_component, ledger_queries.ledger_by_kind(connection, RUN, MECHANISM)):
        assert frame.group_by("step").agg(pl.col("value").sum()).sort("step").rows() == explained
    kept = by_component["group"].unique(maintain_order=True).to_list()
    assert kept == (
        ["embedding", "other", "weight decay", "momentum"]
        if limit == 1
        else ["embedding", "L0.MLP", "L1H0", "L0H1", "weight decay", "momentum"]
    )
    assert ledger_queries.ledger_change(connection, RUN, MECHANISM).rows()[-1] == (30, 12.9375)


def test_report_says_when_a_ledger_does_not_balance(report: Report) -> None:
    # 0.5 nats of 14 nats gross are unexplained, and 3 of the planned 64 intervals are there.
    assert f"The ledger of {MECHANISM} in run {RUN} does not balance" in report.html
    assert "3 of 64" in report.html
