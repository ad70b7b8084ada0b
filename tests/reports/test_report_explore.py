"""The page to explore: complete, offline, safe with any text, and its sums are the ledger's."""

import base64
import hashlib
import html
import json
import re

import duckdb
import numpy as np
import pytest

from mech_pipeline.data.example_tokens import ExampleTokens
from mech_pipeline.reports.explore import data
from mech_pipeline.reports.explore.page import explore_page
from mech_pipeline.reports.subject import Study
from mech_pipeline.spec.experiment import Experiment
from mech_pipeline.store.reading import connect
from tests.support.report_store import MECHANISM, RUN, SCRIPT, SUBJECT


@pytest.fixture(scope="module")
def study(connection: duckdb.DuckDBPyConnection, experiment: Experiment) -> Study:
    return Study(connection, experiment, tuple(experiment.runs()))


@pytest.fixture(scope="module")
def page(study: Study) -> str:
    return explore_page(study)


def test_momentum_is_given_back_to_the_examples_that_caused_it(study: Study) -> None:
    found = {(row["step"], row["component"]): (row["net"], row["gross"]) for row in data.component_rows(study, SUBJECT)}
    assert found[10, "L0H1"] == (0.875, 0.875), "0.5 and 0.25 at once, 0.125 later"
    assert found[10, "embedding"] == (-0.3125, 0.3125)
    assert found[10, "weight decay"][0] == -0.125
    assert not any(component == "momentum" for _, component in found)


def test_a_window_names_its_examples_with_all_updates_that_saw_them(study: Study) -> None:
    windows = data.windows(study, SUBJECT)
    assert windows["examples"]["10"] == [["x00", 0.875], ["x01", -0.3125]]
    assert windows["changes"]["10"] == 0.375
    told = data.examples(study, SUBJECT, ["x00", "x01"])
    assert told["x00"]["seen"] == [[0, 0.875], [15, 1.0]]
    assert told["x01"]["where"] == "stdlib: module_1.py, line 8"


def test_pieces_are_the_tokens_where_they_are_at_hand(study: Study) -> None:
    def read(run, names):
        assert run == RUN
        return ExampleTokens(np.array([[0, 1]] * len(names)), ["de", "f"])

    with_tokens = Study(study.connection, study.experiment, study.specs, read)
    assert data.examples(with_tokens, SUBJECT, ["x00"])["x00"]["pieces"] == ["de", "f"]


def test_the_page_loads_nothing_and_runs_only_what_its_policy_names(page: str) -> None:
    policy = re.search(r'http-equiv="Content-Security-Policy" content="(.*?)"', page)[1]
    assert policy.startswith("default-src 'none';")
    assert "unsafe-eval" not in policy
    scripts = re.findall(r"<script>(.*?)</script>", page, flags=re.S)
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert re.findall(r"'sha256-(.*?)'", html.unescape(policy)) == hashes
    assert len(scripts) == 2
    around = re.sub(r"<script.*?</script>", "", page, flags=re.S)
    assert not re.search(r"<(link|img|iframe|script)", around)
    assert SCRIPT not in page
    assert len(page.encode()) < 5e6


def test_its_data_are_those_of_the_store(page: str) -> None:
    told = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, flags=re.S)[1])
    assert set(told["windows"]["examples"]) == {"10", "20", "30"}
    assert told["examples"]["x02"]["pieces"] == [SCRIPT + SCRIPT]
    assert MECHANISM in json.dumps(told["training"])
    assert told["atlas"] is not None


def test_the_same_store_gives_the_same_page(study: Study, page: str) -> None:
    assert explore_page(study) == page


def test_an_empty_store_gives_a_page_that_says_so(tmp_path, experiment: Experiment) -> None:
    with connect(tmp_path) as nothing:
        page = explore_page(Study(nothing, experiment, tuple(experiment.runs())))
    assert "There is no ledger to look into." in page
