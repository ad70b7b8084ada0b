"""What lies beside the report: figures for papers, the page over all experiments."""

from pathlib import Path

import duckdb
import pytest

from mech_pipeline.reports.index import index_page
from mech_pipeline.reports.page import Report
from mech_pipeline.reports.paper import save_figures
from mech_pipeline.spec.experiment import Experiment
from mech_pipeline.store.reading import connect
from mech_pipeline.store.store import Store
from tests.support.report_store import write, write_runs


@pytest.mark.slow
def test_every_figure_is_written_as_svg_and_pdf_with_the_same_bytes_each_time(
    tmp_path: Path, connection: duckdb.DuckDBPyConnection, experiment: Experiment, report: Report
) -> None:
    first, second = (save_figures(connection, experiment, tmp_path / name) for name in ("a", "b"))
    assert {path.stem + ".png" for path in first} == set(report.figures)
    assert {path.suffix for path in first} == {".svg", ".pdf"}
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    curve = (tmp_path / "a" / "first_formation.svg").read_text()
    assert "training step (updates)" in curve, "text stays text"
    assert (tmp_path / "a" / "first_formation.pdf").read_bytes().startswith(b"%PDF")


def test_the_index_names_every_experiment_with_a_report(tmp_path: Path) -> None:
    store = Store(tmp_path)
    write_runs(store)
    columns = ("experiment", "artifact", "uri", "bytes", "sha256")
    write(store, "reports", columns, [("demo", "report.html", "x", 1, "0"), ("other<", "report.html", "y", 1, "0")])
    with connect(store.root) as opened:
        page = index_page(opened)
    assert '<a href="demo.html">demo</a></td><td class="number">6 of 6</td>' in page
    assert "induction_copy_advantage: 4 of 6 runs, steps 10 to 40" in page
    assert "other&lt;" in page
