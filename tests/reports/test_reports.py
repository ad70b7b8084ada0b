"""Reports on a store small enough to do the sums by hand: two arms, five runs, one ledger, one influence sweep."""

import html
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pytest

from mech_pipeline.attribution.retraining.trust import Trust, Verdict, influence_verdicts, trust
from mech_pipeline.reports.answer import influence_sentences
from mech_pipeline.reports.formation import figures, queries
from mech_pipeline.reports.heads.figures import head_atlas, head_scores_over_steps
from mech_pipeline.reports.influence import queries as attribution_queries
from mech_pipeline.reports.influence.sections import InfluenceSection
from mech_pipeline.reports.ledger import queries as ledger_queries
from mech_pipeline.reports.page import Report, build_report
from mech_pipeline.spec.experiment import Experiment, parse_experiment
from mech_pipeline.store.reading import connect
from mech_pipeline.store.store import Store
from mech_pipeline.store.tables.all import TABLES

MECHANISM, RUN = "induction_copy_advantage", "demo.baseline.s0"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
SCRIPT = "<script>alert(1)</script>"

# Powers of two, so that float32 columns hold the numbers exactly and sums can be compared with ==.
LEDGER = [  # step, update_step, term, example_id, component, value, value_later
    (10, 0, "example", "x00", "L0H1.Q", 0.5, 0.125),
    (10, 0, "example", "x00", "L0H1.K", 0.25, 0.0),
    (10, 0, "example", "x01", "embedding", -0.25, -0.0625),
    (10, 0, "weight_decay", None, "embedding", -0.125, 0.0),
    (20, 15, "example", "x00", "L1H0.O", 1.0, 0.0),
    (20, 15, "example", "x02", "L0.MLP.in", 4.0, 0.0),
    (20, 15, "momentum", None, "L0H1.Q", 0.0625, 0.0),
    (30, 25, "example", "x01", "embedding", 8.0, 0.0),
]


def write(store: Store, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], **cells: list[Any]) -> None:
    """Rows given as tuples in the order of `columns`; provenance is made up."""
    table = TABLES[name]
    filled = {column: [row[place] for row in rows] for place, column in enumerate(columns)}
    for column in table.all_columns:
        other = None if column.nullable else "made up"
        filled.setdefault(column.name, [column.default or other] * len(rows))
    if cells:
        store.write(name, filled, replace=cells)
    else:
        store.insert_new(name, filled)


def write_runs(store: Store) -> list[str]:
    """Baseline forms at 20, 30 and 40, control never; a run of an arm that the experiment no longer has forms at 10."""
    runs = [
        ("demo.baseline.s0", 20),
        ("demo.baseline.s1", 30),
        ("demo.baseline.s2", 40),
        ("demo.control.s0", None),
        ("demo.control.s1", None),
        ("demo.removed.s0", 10),
    ]
    names = [run for run, _ in runs]
    write(
        store,
        "runs",
        ("run", "experiment", "arm", "seed", "fingerprint", "spec", "status", "device", "versions"),
        [
            (
                run,
                "demo",
                run.split(".")[1],
                int(run[-1]),
                "f" * 64,
                "{}",
                "complete",
                "cpu, 1 thread",
                '{"torch": "2"}',
            )
            for run in names
        ],
        run=names,
    )
    steps = (0, 10, 20, 30, 40)
    write(
        store,
        "mechanism_values",
        ("run", "step", "mechanism", "value"),
        [
            (run, step, MECHANISM, 0.0 if formed is None or step < formed else 2.0 + int(run[-1]))
            for run, formed in runs
            for step in steps
        ],
        run=names,
    )
    write(
        store,
        "head_scores",
        ("run", "step", "layer", "head", "detector", "value"),
        [
            (run, step, layer, head, "prefix_matching", step * (1 + layer + head) / 160 if formed else 0.0)
            for run, formed in runs
            for step in steps
            for layer in (0, 1)
            for head in (0, 1)
        ],
        run=names,
    )
    columns = ("run", "mechanism", "step", "lower", "upper", "threshold", "sustain", "censored")
    write(
        store,
        "formation",
        columns,
        [
            (run, MECHANISM, formed, 40 if formed is None else formed - 10, formed, 1.0, 1, formed is None)
            for run, formed in runs
        ]
        + [
            (
                run,
                "best_head:prefix_matching",
                20 if run == RUN else None,
                10,
                20 if run == RUN else None,
                0.3,
                1,
                run != RUN,
            )
            for run in names
        ],
        run=names,
    )
    return names


def write_attribution(store: Store) -> None:
    """A ledger of three intervals, and influence on step 20 of forty examples, the even ones tiled."""
    texts = {2: SCRIPT + SCRIPT}
    write(
        store,
        "examples",
        ("example_id", "kind", "source", "document", "offset", "line", "period", "n_tokens", "text", "repeat_at"),
        [
            (
                f"x{i:02d}",
                "plain" if i % 2 else "tiled",
                "stdlib",
                f"module_{i}.py",
                0,
                7 + i,
                0,
                8,
                texts.get(i, "def f(): def f(): "),
                0 if i % 2 else len(texts.get(i, "def f(): " * 2)) // 2,
            )
            for i in range(40)
        ],
    )
    write(
        store,
        "batches",
        ("run", "update_step", "position", "example_id"),
        [(RUN, step, 0, "x00") for step in (0, 15, 25)] + [(RUN, 15, 1, "x02")],
        run=[RUN],
    )
    write(
        store,
        "ledger",
        ("step", "update_step", "term", "example_id", "component", "value", "value_later", "run", "mechanism"),
        [(*row, RUN, MECHANISM) for row in LEDGER],
        run=[RUN],
    )
    write(
        store,
        "ledger_balance",
        ("run", "step", "mechanism", "change", "explained", "updates", "gross", "update_error", "example_error"),
        [
            (RUN, 10, MECHANISM, 0.375, 0.375, 10, 1.0, 1e-7, 3e-7),
            (RUN, 20, MECHANISM, 5.0625, 5.0625, 10, 5.0, 2e-7, 1e-7),
            (RUN, 30, MECHANISM, 7.5, 8.0, 10, 8.0, 0.0, 0.0),
        ],
        run=[RUN],
    )
    # x03 has the largest sum without the largest row; the rows at 10 and 30 are left from older formation steps.
    influence = [(20, 0, f"x{i:02d}", 40.0 - i) for i in range(40) if i != 3]
    influence += [(20, 1, "x03", 25.0), (20, 15, "x03", 25.0), (10, 0, "x39", 900.0), (30, 0, "x39", 900.0)]
    write(
        store,
        "influence",
        ("step", "update_step", "example_id", "value", "run", "mechanism"),
        [(*row, RUN, MECHANISM) for row in influence],
        run=[RUN],
    )
    measures = [
        ("metasmoothness", -1, 0.75),
        ("adjoint_growth", -1, 90.0),
        ("horizon_step", -1, 0.0),
        ("influence_sum", -1, -1.5e-6),
        ("reliable", -1, 1.0),
        ("adjoint_norm", 0, 45.0),
        ("adjoint_norm", 15, 0.5),
    ]
    write(
        store,
        "reliability",
        ("metric", "update_step", "value", "run", "step", "mechanism"),
        [(*row, RUN, 20, MECHANISM) for row in measures],
        run=[RUN],
    )


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    """Two arms, with a ledger and influence of the first run."""
    return parse_experiment(
        {
            "experiment": "demo",
            "question": "Does <repetition> make induction?",
            "corpus": {"python_stdlib": True},
            "mechanisms": [MECHANISM, "previous_token_attention"],
            "detectors": ["prefix_matching", "previous_token"],
            "formation": [
                {"mechanism": MECHANISM, "threshold": 1.0, "sustain": 1},
                {"detector": "prefix_matching", "threshold": 0.3, "sustain": 1},
            ],
            "ledger": {"mechanisms": [MECHANISM]},
            "influence": {"mechanisms": [MECHANISM]},
            "arms": {"baseline": {"seeds": [0, 1, 2]}, "control": {"seeds": [0, 1]}},
        }
    )


@pytest.fixture(scope="module")
def runs(experiment: Experiment) -> list[str]:
    """The experiment's run ids."""
    return [spec.run for spec in experiment.runs()]


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    """The views of the filled store."""
    store = Store(tmp_path_factory.mktemp("store"))
    write_runs(store)
    write_attribution(store)
    with connect(store.root) as opened:
        yield opened


@pytest.fixture(scope="module")
def report(connection: duckdb.DuckDBPyConnection, experiment: Experiment) -> Report:
    """The report of the filled store."""
    return build_report(connection, experiment)


def drawn_figures(connection: duckdb.DuckDBPyConnection, runs: list[str]) -> list[Any]:
    """Every kind of figure."""
    return [
        figures.formation_curves(
            queries.mechanism_curves(connection, runs), queries.formation_events(connection, runs), {MECHANISM: "nats"}
        ),
        head_scores_over_steps(queries.head_scores(connection, RUN), RUN, {"prefix_matching": "attention probability"}),
        figures.ledger_over_steps(
            ledger_queries.ledger_by_component(connection, RUN, MECHANISM),
            ledger_queries.ledger_by_kind(connection, RUN, MECHANISM),
            ledger_queries.ledger_change(connection, RUN, MECHANISM),
            "nats",
            "title",
        ),
        figures.influence_against_ledger(
            attribution_queries.influence_against_ledger(connection, RUN, MECHANISM), "nats", "title"
        ),
        figures.influence_over_updates(
            attribution_queries.influence_by_update(connection, RUN, MECHANISM),
            attribution_queries.adjoint_norms(connection, RUN, MECHANISM),
            "nats",
            "title",
        ),
    ]


def test_results_table_has_mean_and_spread_over_seeds(connection: duckdb.DuckDBPyConnection, runs: list[str]) -> None:
    baseline = queries.results_table(connection, runs, MECHANISM).row(0, named=True)
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


def test_censored_seeds_are_counted_and_not_averaged(connection: duckdb.DuckDBPyConnection, runs: list[str]) -> None:
    control = queries.results_table(connection, runs, MECHANISM).row(1, named=True)
    assert (control["arm"], control["n_seeds"], control["n_formed"], control["n_censored"]) == ("control", 2, 0, 2)
    assert control["steps"] == [None, None]
    assert control["step_mean"] is None
    assert (control["value_mean"], control["value_sd"]) == (0, 0)

    mixed = queries.results_table(connection, runs, "best_head:prefix_matching").row(0, named=True)
    assert (mixed["n_formed"], mixed["n_censored"]) == (1, 2)
    assert (mixed["step_mean"], mixed["step_sd"], mixed["step_low"]) == (20, None, None)
    assert mixed["value_mean"] == 0.75


def test_runs_that_left_the_experiment_stay_out(connection: duckdb.DuckDBPyConnection, runs: list[str]) -> None:
    assert queries.results_table(connection, runs, MECHANISM)["arm"].to_list() == ["baseline", "control"]
    assert "demo.removed.s0" not in queries.mechanism_curves(connection, runs)["run"].to_list()


def test_ledger_ranks_examples_by_what_they_did_before_the_target_step(connection: duckdb.DuckDBPyConnection) -> None:
    found = attribution_queries.responsible_documents(connection, RUN, MECHANISM, "ledger", limit=10)
    # x01's 8.0 comes from update 25, after the target step 20; x00's total includes its 0.125 through momentum.
    assert found.select("example_id", "total", "times_seen").rows() == [
        ("x02", 4.0, 1),
        ("x00", 0.5 + 0.125 + 0.25 + 1.0, 2),
        ("x01", -0.25 - 0.0625, 0),
    ]
    assert found.row(1, named=True)["document"] == "module_0.py"


def test_influence_ranks_examples_by_their_sum_at_the_current_target_step(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    assert attribution_queries.target_step(connection, RUN, MECHANISM) == 20
    found = attribution_queries.responsible_documents(connection, RUN, MECHANISM, "influence", limit=3)
    assert found.select("example_id", "total").rows() == [("x03", 50.0), ("x00", 40.0), ("x01", 39.0)]


@pytest.mark.parametrize(("share", "tiled"), [(0.025, 0.0), (0.05, 0.5), (0.1, 0.5), (1.0, 0.5), (0.001, 0.0)])
def test_tiled_share_counts_distinct_examples_of_the_top(
    connection: duckdb.DuckDBPyConnection, share: float, tiled: float
) -> None:
    # In order: x03 (plain), x00 (tiled), x01 (plain), x02 (tiled), … of 40 examples.
    assert attribution_queries.tiled_share_of_top(connection, RUN, MECHANISM, share) == tiled
    assert attribution_queries.tiled_share_of_top(connection, "demo.baseline.s1", MECHANISM, share) is None


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


def test_influence_is_averaged_over_bins_of_updates(connection: duckdb.DuckDBPyConnection) -> None:
    rows = attribution_queries.influence_by_update(connection, RUN, MECHANISM, bins=2).rows(named=True)
    (late,) = [row for row in rows if row["update_step"] == 15]
    assert (late["kind"], late["mean_signed"], late["mean_absolute"], late["n"]) == ("plain", 25.0, 25.0, 1)
    assert {row["update_step"] for row in rows} == {5, 15}
    assert attribution_queries.adjoint_norms(connection, RUN, MECHANISM).rows() == [(0, 45.0), (15, 0.5)]


def test_influence_and_ledger_are_compared_example_by_example(connection: duckdb.DuckDBPyConnection) -> None:
    both = attribution_queries.influence_against_ledger(connection, RUN, MECHANISM)
    assert both.rows() == [
        ("x00", "tiled", 1.875, 40.0),
        ("x01", "plain", -0.3125, 39.0),
        ("x02", "tiled", 4.0, 38.0),
    ]
    # Ranks 2, 1, 3 against 3, 2, 1: rho = 1 − 6 · (1 + 1 + 4) / (3 · 8).
    assert figures.rank_correlation(both) == "Spearman ρ = -0.50 (n = 3 examples)"
    flat = both.with_columns(influence=pl.lit(1.0))
    assert figures.rank_correlation(flat) == "Spearman ρ undefined (n = 3 examples)"


def test_every_axis_carries_a_unit_and_every_figure_names_n(
    connection: duckdb.DuckDBPyConnection, runs: list[str]
) -> None:
    unit = re.compile(r"\([^)]*(updates|nats|attention probability)[^)]*\)")
    for figure in drawn_figures(connection, runs):
        for axes in figure.axes:
            assert unit.search(axes.get_xlabel()), axes.get_xlabel()
            assert unit.search(axes.get_ylabel()), axes.get_ylabel()
        assert "n = " in figure.get_suptitle() + figure.axes[0].get_title(loc="left")


def test_every_seed_is_drawn_and_formation_steps_are_marked(
    connection: duckdb.DuckDBPyConnection, runs: list[str]
) -> None:
    lines = drawn_figures(connection, runs)[0].axes[0].get_lines()
    assert sum(len(line.get_xdata()) == 5 for line in lines) == len(runs)
    dots = [line for line in lines if line.get_marker() == "o" and len(line.get_xdata())]
    assert sorted((dot.get_xdata()[0], dot.get_ydata()[0]) for dot in dots) == [(20, 2.0), (30, 3.0), (40, 4.0)]
    assert [line.get_ydata()[0] for line in lines if line.get_linestyle() == "--"] == [1.0]


def test_a_figure_has_the_same_bytes_each_time(connection: duckdb.DuckDBPyConnection, runs: list[str]) -> None:
    first, second = (figures.figure_png(drawn_figures(connection, runs)[3]) for _ in range(2))
    assert first == second


def test_report_has_every_figure_as_png_inside_the_page(report: Report) -> None:
    assert set(report.figures) == {
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
    assert "50 % are tiled; of all 40 examples with an influence, 50 % are." in text
    assert "s0: 20 (after 10); s1: 30 (after 20); s2: 40 (after 30)" in text


def test_report_says_when_a_ledger_does_not_balance(report: Report) -> None:
    # 0.5 nats of 14 nats gross are unexplained, and 3 of the planned 64 intervals are there.
    assert f"The ledger of {MECHANISM} in run {RUN} does not balance" in report.html
    assert "3 of 64" in report.html


def test_unreliable_influence_is_called_so_wherever_it_is_spoken_of(report: Report) -> None:
    section = InfluenceSection(
        RUN,
        MECHANISM,
        "nats",
        20,
        trust=Trust(False, retrained=False),
        measures=[],
        n_examples=40,
        tiled_top=1.0,
        tiled_all=0.5,
        documents=[],
        figure="",
        against_ledger=None,
        correlation="",
        flagged="960 of 960",
        estimators=[],
    )
    assert "marked not reliable" in influence_sentences(section)
    assert "has not been measured" in influence_sentences(replace(section, trust=Trust(None, retrained=False)))
    assert "did not confirm it" in influence_sentences(replace(section, trust=Trust(False, retrained=True)))
    assert "do not draw conclusions" not in report.html


def test_atlas_shows_every_head_at_every_checkpoint(connection: duckdb.DuckDBPyConnection) -> None:
    scores = queries.head_scores(connection, RUN)
    picture = head_atlas(scores, RUN, {"prefix_matching": "attention probability"})
    shown = np.asarray(picture.axes[0].get_images()[0].get_array())
    heads = scores.select("layer", "head").unique().sort("layer", "head").rows()
    steps = scores["step"].unique().sort().to_list()
    assert shown.shape == (len(heads), len(steps))
    for row in scores.filter(detector="prefix_matching").iter_rows(named=True):
        place = heads.index((row["layer"], row["head"])), steps.index(row["step"])
        assert shown[place] == pytest.approx(row["value"])
    labels = [label.get_text() for label in picture.axes[0].get_yticklabels()]
    assert labels == [f"L{layer}H{head}" for layer, head in heads]


def test_what_retraining_measured_outranks_what_the_sweep_knows_of_itself(local_store: Store) -> None:
    names = ("step", "update_step", "example_id", "value", "run", "mechanism", "method", "reliable")
    keys = (RUN, MECHANISM, "adjoint")
    for step, reliable in ((10, True), (20, True), (30, False), (40, None)):
        replaced = {"run": [RUN], "step": [step], "mechanism": [MECHANISM], "method": ["adjoint"]}
        write(local_store, "influence", names, [(step, u, "a", 1.0, *keys, reliable) for u in (0, 1)], **replaced)
        if reliable is not None:
            of_sweep = [("reliable", -1, float(reliable), step, *keys)]
            columns = ("metric", "update_step", "value", "step", "run", "mechanism", "method")
            write(local_store, "reliability", columns, of_sweep, **replaced)
    measured = ((20, 0.05, 0.0), (20, 0.01, 1.0), (30, 0.05, 1.0))
    write(
        local_store,
        "lds",
        ("step", "fraction", "metric", "value", "n", "run", "mechanism", "method"),
        [(step, fraction, "reliable", value, 40, *keys) for step, fraction, value in measured],
        run=[RUN],
    )
    with connect(local_store.root) as opened:
        said = [trust(opened, RUN, step, MECHANISM) for step in (10, 20, 30, 40)]
        verdicts = {verdict.name: verdict for verdict in influence_verdicts(opened)}
    assert said == [Trust(True, False), Trust(False, True), Trust(True, True), Trust(None, False)]
    of_step = {step: verdicts[f"{RUN}|{step} {MECHANISM} adjoint"] for step in (10, 20, 30, 40)}
    assert [step for step, verdict in of_step.items() if verdict.flagged] == [20]
    assert [step for step, verdict in of_step.items() if verdict.unknown] == [40]
    assert of_step[20].words == "not confirmed by retraining"
    assert Verdict("name", 3, 0, 4, None).words == "3 of 4 scores"


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


def test_queries_work_while_another_result_is_open(connection: duckdb.DuckDBPyConnection, runs: list[str]) -> None:
    assert connection.execute("select run from runs").fetchone() is not None
    assert queries.results_table(connection, runs, MECHANISM).height == 2


def test_empty_store_still_renders(tmp_path: Path, experiment: Experiment, runs: list[str]) -> None:
    with connect(tmp_path) as nothing:
        page = build_report(nothing, experiment)
        assert page.figures == {}
        assert "Nothing has been evaluated yet" in page.html
        assert "A ledger was asked for, but it has not been computed yet." in page.html
        assert "Influence was asked for, but it has not been computed yet." in page.html
        for frame in (
            queries.results_table(nothing, runs, MECHANISM),
            ledger_queries.ledger_totals(nothing, RUN, MECHANISM),
            attribution_queries.responsible_documents(nothing, RUN, MECHANISM, "ledger"),
            ledger_queries.ledger_by_component(nothing, RUN, MECHANISM),
            ledger_queries.balance(nothing, runs),
            ledger_queries.ledger_change(nothing, RUN, MECHANISM),
            attribution_queries.influence_by_update(nothing, RUN, MECHANISM),
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
