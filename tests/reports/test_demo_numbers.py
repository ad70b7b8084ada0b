"""The demo's numbers: read right from a store, and the same wherever the documentation shows them."""

import json
import re
import subprocess
import sys

import pytest

from mech_pipeline.reports.demo_numbers import FILE, MECHANISM, PAGES, filled, marked, numbers
from mech_pipeline.store.tables.all import TABLES
from tests.support.places import ROOT

KNOWN = json.loads((ROOT / FILE).read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES)
def test_every_number_on_a_page_is_the_one_of_the_file(page):
    shown = marked((ROOT / page).read_text(encoding="utf-8"))
    assert shown, "a page without numbers need not be listed"
    assert [(name, text) for name, text in shown if KNOWN.get(name) != text] == []


def test_no_page_marks_numbers_without_being_compared():
    pages = {str(page.relative_to(ROOT)) for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]}
    assert {page for page in pages if "<!--n:" in (ROOT / page).read_text(encoding="utf-8")} == set(PAGES)


def test_no_page_shows_numbers_of_the_demo_by_hand():
    """Texts that nothing else would have, outside of marks."""
    telling = [text for text in set(KNOWN.values()) if len(text) > 6]
    for page in PAGES:
        rest = re.sub(r"<!--n:.*?<!--/n-->", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.S)
        assert [text for text in telling if text in rest] == [], page


def test_the_help_of_make_and_the_first_page_name_the_same_time():
    time = f"about {KNOWN['minutes']} minutes on 2 "
    assert all(time in (ROOT / file).read_text(encoding="utf-8") for file in ("Makefile", "README.md"))


def test_a_page_that_names_an_unknown_number_is_refused():
    with pytest.raises(KeyError, match="surprise"):
        filled("<!--n:surprise-->1<!--/n-->", KNOWN)


EMPTY = {"string": "made up", "int32": 0, "int64": 0, "float32": 0.0, "float64": 0.0, "bool": False}


def put(store, name, rows, **cells):
    """Rows of a table; columns that they do not name are made up."""
    table = TABLES[name]
    columns = {
        column.name: [row.get(column.name, column.default if column.nullable else EMPTY[column.type]) for row in rows]
        for column in table.all_columns
    }
    if cells:
        store.write(name, columns, replace=cells)
    else:
        store.insert_new(name, columns)


@pytest.fixture
def finished(local_store):
    """A demo small enough to do the sums by hand: two seeds and a control; ledger and influence of seed 0."""
    runs = [("induction.baseline.s0", 0, 10), ("induction.baseline.s1", 1, 20), ("induction.control.s0", 0, None)]
    runs.append(("induction.shuffled.s0", 0, None))
    names, signals = [name for name, _, _ in runs], [MECHANISM, "best_head:prefix_matching"]
    described = [
        {"run": run, "experiment": "induction", "arm": run.split(".")[1], "seed": seed} for run, seed, _ in runs
    ]
    put(local_store, "runs", described, run=names)
    events = [
        {"run": run, "mechanism": signal, "step": step, "lower": 40 if step is None else step - 5, "upper": step}
        for run, _, step in runs
        for signal in signals
    ]
    put(local_store, "formation", events, run=names)
    ends = {
        "induction.baseline.s0": 3.0,
        "induction.baseline.s1": 4.0,
        "induction.control.s0": -0.25,
        "induction.shuffled.s0": 0.125,
    }
    values = [{"run": run, "step": 40, "mechanism": MECHANISM, "value": value} for run, value in ends.items()]
    put(local_store, "mechanism_values", [*values, values[0] | {"step": 0, "value": 9.0}], run=names)
    heads = [(0, 1.0), (1, 0.0)]
    scores = [
        {"run": run, "step": 40, "head": head, "detector": "prefix_matching", "value": share * value / 8}
        for run, value in ends.items()
        for head, share in heads
    ]
    put(local_store, "head_scores", scores, run=names)
    _attribution(local_store, names[0])
    return local_store


def _attribution(store, run):
    """Examples e00, e01, … e19 have influence 20, 19, …; every fourth is plain, from the first. The ledger has the same order."""
    examples = [f"e{index:02d}" for index in range(20)]
    put(
        store,
        "examples",
        [{"example_id": name, "kind": "tiled" if i % 4 else "plain"} for i, name in enumerate(examples)],
    )
    target = {"run": run, "step": 10, "mechanism": MECHANISM}
    influence = [
        target | {"example_id": name, "value": (20.0 - i) / 2, "update_step": update, "method": method}
        for i, name in enumerate(examples)
        for update, method in ((1, "adjoint"), (2, "adjoint"), (1, "gradient_dot"))
    ]
    put(store, "influence", influence, run=[run])
    measures = {"metasmoothness": 0.66, "metasmoothness_since": 0, "adjoint_growth": 57.7, "horizon_step": 0}
    measures |= {"influence_sum": 0.0012, "reliable": 0}
    rows = [
        target | {"metric": name, "update_step": -1, "value": value, "method": "adjoint"}
        for name, value in measures.items()
    ]
    put(store, "reliability", [*rows, rows[0] | {"method": "gradient_dot", "value": 5.0}], run=[run])
    measured = {"lds": 0.9, "predicted_difference": -3.0, "query_loss_difference": -1.5, "query_loss_z": -9.4}
    measured |= {"matched_predicted": 0.25, "matched_difference": -0.5, "predicted_mean": 0.0, "predicted_spread": 0.2}
    measured |= {"measured_mean": -0.25, "measured_spread": 0.1}
    proof = [
        target
        | {"metric": name, "value": value, "lower": 0.5, "upper": 1.0, "n": 8, "method": "adjoint", "fraction": 0.05}
        for name, value in measured.items()
    ]
    put(store, "lds", proof, run=[run])
    ledger = [
        target
        | {
            "update_step": 1,
            "term": "example",
            "example_id": name,
            "component": "all",
            "value": 2.0**-i,
            "value_later": 0.5,
        }
        for i, name in enumerate(examples)
    ]
    ledger.append(target | {"update_step": 0, "term": "momentum", "component": "all", "value": 10.0})
    put(store, "ledger", ledger, run=[run])
    windows = [(10, 1.0, 1.5), (20, 3.0, 2.5 + 4e-6)]
    balance = [
        target
        | {"step": step, "change": change, "explained": explained, "update_error": 1e-8 * step, "example_error": 2e-8}
        for step, change, explained in windows
    ]
    put(store, "ledger_balance", balance, run=[run])


def test_numbers_are_those_of_the_store(finished):
    found = numbers(str(finished.root), 264.4)
    assert found["copy_formed"] == found["head_formed"] == "2 of 2"
    assert found["copy_steps"] == "10, 20"
    assert found["copy_step"] == "15 ± 7"
    assert found["copy_control_censored"] == "40"
    assert found["copy_advantage"] == "3.50 ± 0.71", "of the last checkpoint"
    assert (found["copy_advantage_control"], found["copy_advantage_shuffled"]) == ("−0.250", "0.125")
    assert (found["top_predicted"], found["top_happened"], found["top_z"]) == ("−3.00", "−1.50", "−9.4")
    assert (found["matched_predicted"], found["matched_happened"]) == ("+0.25", "−0.50")
    assert (found["random_sets"], found["random_happened"]) == ("8", "−0.25 ± 0.10")
    assert found["demo_lds"] == "0.90 [0.50, 1.00]"
    assert found["prefix_matching"] == "0.44 ± 0.09", "of the best head"
    assert (found["ledger_explained"], found["ledger_change"]) == ("+4.0000040", "+4.0000000")
    assert (found["ledger_imbalance"], found["ledger_windows"]) == ("1.0e-6", "2")
    assert (found["update_error"], found["example_error"]) == ("2.0e-7", "2.0e-8")
    assert (found["later"], found["momentum"]) == ("10.000000", "10.000000")
    assert found["tiled_bottom"] == "100 %"
    assert (found["tiled_top"], found["tiled_all"]) == ("0 %", "75 %"), "the one example of the top is plain"
    assert found["ledger_influence_correlation"] == "1.00"
    assert (found["metasmoothness"], found["adjoint_growth"]) == ("0.66", "58")
    assert (found["seconds"], found["minutes"]) == ("264 s", "4")
    assert found.keys() == KNOWN.keys()


def test_the_program_writes_the_file_and_fills_the_pages(finished, tmp_path):
    for page in PAGES:
        (tmp_path / page).parent.mkdir(exist_ok=True)
        (tmp_path / page).write_text("at step <!--n:copy_step--><!--/n-->", encoding="utf-8")
    command = [sys.executable, "-m", "mech_pipeline.reports.demo_numbers", str(finished.root), "--seconds", "264"]
    subprocess.run([*command, "--root", str(tmp_path)], check=True, cwd=ROOT)
    assert json.loads((tmp_path / FILE).read_text(encoding="utf-8"))["copy_steps"] == "10, 20"
    assert all("<!--n:copy_step-->15 ± 7<!--/n-->" in (tmp_path / page).read_text(encoding="utf-8") for page in PAGES)
