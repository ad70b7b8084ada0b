"""One filled store and its report, shared by all tests of reports."""

from collections.abc import Iterator

import duckdb
import pytest

from mech_pipeline.reports.page import Report, build_report
from mech_pipeline.spec.experiment import Experiment
from mech_pipeline.store.reading import connect
from mech_pipeline.store.store import Store
from tests.support.report_store import demo_experiment, write_attribution, write_runs


@pytest.fixture(scope="session")
def experiment() -> Experiment:
    """Two arms, with a ledger and influence of the first run."""
    return demo_experiment()


@pytest.fixture(scope="session")
def runs(experiment: Experiment) -> list[str]:
    """The experiment's run ids."""
    return [spec.run for spec in experiment.runs()]


@pytest.fixture(scope="session")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    """The views of the filled store."""
    store = Store(tmp_path_factory.mktemp("report-store"))
    write_runs(store)
    write_attribution(store)
    with connect(store.root) as opened:
        yield opened


@pytest.fixture(scope="session")
def report(connection: duckdb.DuckDBPyConnection, experiment: Experiment) -> Report:
    """The report of the filled store."""
    return build_report(connection, experiment)
