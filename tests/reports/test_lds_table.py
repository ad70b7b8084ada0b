"""The table of how well influence predicts retraining: right from a store, and the same on the first page."""

import json
import subprocess
import sys

import numpy as np
import pytest

from mech_pipeline.attribution.retraining.lds import linear_datamodeling_score, score_difference
from mech_pipeline.reports.lds_table import BEGIN, END, FILE, PAGE, filled, measured, merged, table
from mech_pipeline.store.reading.connection import connect
from tests.support.places import ROOT

RUN, STEP, MECHANISM = "e.baseline.s0", 8, "m"
ROWS = json.loads((ROOT / FILE).read_text(encoding="utf-8"))
DRAWN = np.random.Generator(np.random.PCG64(1))
CHANGES = DRAWN.normal(size=20)
SCORES = {"adjoint": -CHANGES + 0.3 * DRAWN.normal(size=20), "gradient_dot": DRAWN.normal(size=20)}


def test_the_first_page_shows_the_table_of_the_file():
    page = (ROOT / PAGE).read_text(encoding="utf-8")
    assert page == filled(page, ROWS)


def test_every_row_of_the_file_says_what_it_rests_on():
    for row in ROWS:
        value, lower, upper = row["lds"]
        assert lower <= value <= upper
        assert row["n"] >= 40, "an interval of fewer removals says little"
        assert 0 < row["share"] < 1


def test_a_share_that_is_measured_elsewhere_leaves_the_others():
    def row(share, value, method="adjoint", preset="p", n=40):
        return {"preset": preset, "method": method, "share": share, "n": n, "lds": [value, value, value]}

    others = [row(0.1, 0.1, "gradient_dot"), row(0.1, 0.4, preset="q"), row(0.1, 0.6, n=60)]
    known = [row(0.05, 0.8), row(0.1, 0.5), *others]
    assert merged(known, [row(0.1, 0.7)]) == [known[0], *known[2:], row(0.1, 0.7)]


@pytest.fixture
def retrained(local_store):
    """Twenty removals of one example each: predicted by two estimators, and what happened."""
    made = {"input_fingerprint": "made", "data_version": "held"}
    target = {"run": RUN, "step": STEP, "mechanism": MECHANISM}
    for method, values in SCORES.items():
        rows = [
            target | made | {"method": method, "update_step": 0, "example_id": f"e{i:02d}", "value": value}
            for i, value in enumerate(values.tolist())
        ]
        local_store.write("influence", _columns(rows), replace={"run": [RUN], "method": [method]})
    names = [f"random-0.05-{i}" for i in range(20)]
    lists = [
        {"run": RUN, "step": STEP, "removal": name, "example_id": f"e{i:02d}"} | made for i, name in enumerate(names)
    ]
    local_store.write("removals", _columns(lists), replace={"run": [RUN]})
    retrainings = [
        target | made | {"removal": name, "fraction": 0.05, "n_removed": 1, "value": change, "change": change}
        for name, change in zip(names, CHANGES.tolist(), strict=True)
    ]
    retrainings.append(retrainings[0] | {"removal": "top-0.05-adjoint-m", "change": 99.0})
    local_store.write("retrainings", _columns(retrainings), replace={"run": [RUN]})
    return local_store


def _columns(rows):
    return {name: [row[name] for row in rows] for name in rows[0]}


def test_rows_are_those_of_the_random_removals(retrained):
    with connect(retrained.root) as connection:
        exact, other = measured(connection, RUN, "tiny")
    assert (exact["method"], other["method"], exact["n"], exact["share"]) == ("adjoint", "gradient_dot", 20, 0.05)
    expected = linear_datamodeling_score(-SCORES["adjoint"].astype(np.float32).astype(float), CHANGES)
    assert exact["lds"] == pytest.approx([expected.value, expected.lower, expected.upper], abs=6e-4)
    assert exact["slope"] == pytest.approx(np.polyfit(-SCORES["adjoint"], CHANGES, 1)[0], abs=1e-3)
    assert "beyond_exact" not in exact
    apart = score_difference(-SCORES["gradient_dot"], -SCORES["adjoint"], CHANGES)
    assert other["beyond_exact"] == pytest.approx([apart.value, apart.lower, apart.upper], abs=6e-4)
    assert other["beyond_exact"][2] < 0, "noise predicts nothing"


def test_the_program_replaces_the_rows_of_its_preset_and_fills_the_page(retrained, tmp_path):
    (tmp_path / "docs").mkdir()
    kept = {"preset": "other", "share": 0.01, "method": "adjoint", "n": 40, "lds": [0.9, 0.8, 0.95]}
    old = kept | {"preset": "tiny", "share": 0.05, "n": 20, "lds": [0.1, 0.0, 0.2]}
    (tmp_path / FILE).write_text(json.dumps([old, kept]), encoding="utf-8")
    (tmp_path / PAGE).write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", encoding="utf-8")
    command = [sys.executable, "-m", "mech_pipeline.reports.lds_table", str(retrained.root), RUN, "--preset", "tiny"]
    subprocess.run([*command, "--root", str(tmp_path)], check=True, cwd=ROOT)
    rows = json.loads((tmp_path / FILE).read_text(encoding="utf-8"))
    assert [(row["preset"], row["method"]) for row in rows] == [
        ("other", "adjoint"),
        ("tiny", "adjoint"),
        ("tiny", "gradient_dot"),
    ]
    page = (tmp_path / PAGE).read_text(encoding="utf-8")
    assert page == f"before\n{BEGIN}\n{table(rows)}\n{END}\nafter\n"


def test_the_best_of_the_cheaper_estimators_stands_alone():
    row = {"preset": "p", "share": 0.05, "n": 40}
    rows = [
        row | {"method": method, "lds": [value, value - 0.1, value + 0.1]}
        for method, value in (("adjoint", 0.9), ("gradient_dot", -0.2), ("gauss_newton", 0.3), ("ekfac", 0.1))
    ]
    last = table(rows).splitlines()[-1]
    assert last == "| p | 5 % (40 sets) | 0.90 [0.80, 1.00] | 0.30 [0.20, 0.40] |"


def test_a_page_without_marks_is_refused():
    with pytest.raises(ValueError, match="no <!--lds-->"):
        filled("nothing", ROWS)
