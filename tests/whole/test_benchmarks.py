"""The benchmarks run, at toy size, and what they count is right; times are not looked at."""

import json
import math
import os
from pathlib import Path

import pytest

from mech_pipeline.mechanisms.registry import DETECTORS
from tests.support.live import CHROMIUM
from tests.support.places import ROOT
from tests.support.postgres_server import postgres_programs
from tests.support.tiny import write_experiment, write_text
from tests.support.warm_python import warm_python

TOY = {
    "rows": 60_000,
    "run-rows": 30_000,
    "ledger-rows": 32_000,
    "writers": 2,
    "replacements": 10,
    "kills": 2,
    "runs": 2,
    "steps": 10,
    "commits": 4,
    "flips": 20,
    "bulk-megabytes": 1,
    "log-length": 8,
    "latency-commits": 4,
    "repetitions": 1,
}


def measured(folder, script, *options, within=(0, 1), **environment):
    """What a benchmark writes; exit code 1 says that a target is missed, which toy sizes and busy machines may do."""
    arguments = [f"benchmarks/{script}.py", *options, "--folder", str(folder), "--json", str(folder / "out")]
    done = warm_python(arguments, ROOT, os.environ | environment)
    assert done.returncode in within, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return json.loads((folder / "out").read_text())["results"]


def counted(results):
    """What must not happen, and how often it did."""
    return {result["what"]: result["measured"] for result in results if result["target"] == 0}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark")
    found = measured(folder, "store", *(word for name, size in TOY.items() for word in (f"--{name}", str(size))))
    assert [path.name for path in folder.iterdir()] == ["out"], "the benchmark takes its stores away"
    return found


def test_every_part_measures_something(results):
    parts = {result["part"].split(",")[0].split()[0] for result in results}
    assert parts == {"writers", "kills", "influence", "ledger", "point", "connect", "checked", "flips", "latency"}
    assert all(math.isfinite(result["measured"]) for result in results)
    none = {result["what"] for result in results if result["unit"] in ("files", "cells")}  # of these there may be none
    none |= {
        result["what"] for result in results if result["what"].endswith("more than unchecked")
    }  # or less, by noise
    assert [each["what"] for each in results if each["what"] not in none and each["measured"] <= 0] == []


def test_what_must_be_nothing_is_nothing(results):
    found = counted(results)
    assert len(found) >= 10
    assert {what: count for what, count in found.items() if count} == {}


def test_what_must_happen_happened(results):
    found = {result["what"]: result["measured"] for result in results}
    for what in ("snapshots read", "cells read", "commits acknowledged"):
        assert found[what] > 0, what


def test_an_unknown_part_is_refused():
    done = warm_python(["benchmarks/store.py", "speed"], ROOT, os.environ)
    assert done.returncode == 2
    assert "there is no part 'speed'" in done.stderr


def test_every_part_of_the_training_benchmark_measures_something(tmp_path):
    options = ["--updates", "1", "--turns", "1", "--steps", "12", "--kills", "1", "--kill-steps", "60", "--runs", "2"]
    results = measured(tmp_path, "training", *options)
    assert {result["part"] for result in results} == {"plain", "transformer_lens", "checkpoints", "kills", "stacked"}
    assert list(counted(results).values()) == [0, 0]


def test_every_part_of_the_gpu_benchmark_measures_something(tmp_path):
    sizes = {"vocabulary": 64, "context": 16, "batch": 4, "updates": 1, "turns": 1, "runs": 2, "stack-updates": 4}
    options = [word for name, size in sizes.items() for word in (f"--{name}", str(size))]
    results = measured(tmp_path, "gpu", *options, "--device", "cpu", "--preset", "pythia-14m")
    assert {result["part"] for result in results} == {"plain", "stacked", "checkpoints", "attribution"}
    assert len([result for result in results if result["what"].startswith("model FLOP utilisation")]) == 2


def test_every_part_of_the_attribution_benchmark_but_peers_measures_something(tmp_path):
    parts = ["examples", "tokens", "in_training", "ledger", "influence"]
    write_text(tmp_path)
    sizes = {"examples": "4", "turns": "1", "updates": "10", "until": "20", "corpus": str(tmp_path / "text" / "*.txt")}
    options = [word for name, value in sizes.items() for word in (f"--{name}", value)]
    results = measured(tmp_path, "attribution", *parts, *options)
    assert {result["part"] for result in results} == set(parts)
    assert list(counted(results).values()) == [0, 0]
    (error,) = [result["measured"] for result in results if "largest error" in result["what"]]
    assert error < 2e-6


def test_a_peer_that_cannot_be_installed_has_a_row_that_says_why(tmp_path):
    """With a pip that reaches no package index the environment stays empty."""
    options = ["--examples", "4", "--turns", "1", "--environment", str(tmp_path / "environment")]
    unreachable = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path), "PIP_CONFIG_FILE": "/dev/null"}
    results = measured(tmp_path, "attribution", "peers", *options, within=(0,), **unreachable)
    ours = [result for result in results if result["what"].startswith("ours")]
    missing = [result for result in results if "not installed: ERROR" in result["what"]]
    assert len(ours) == 2
    assert len(missing) == 6
    assert len(results) == 8


def test_the_benchmark_of_mechanisms_runs_every_detector(tmp_path):
    few = ["--documents", "400", "--source", str(Path(os.__file__).parent / "a*.py")]
    results = measured(tmp_path, "mechanisms", "--repetitions", "1", "--checkpoints", "3", *few)
    assert set(DETECTORS) <= {result["what"] for result in results}
    assert {result["part"] for result in results} == {"checkpoint", "run"}


def test_every_part_of_the_dagster_benchmark_measures_something(tmp_path):
    results = measured(tmp_path, "dagster_events", "--partitions", "3", "--turns", "1")
    assert [result["part"] for result in results].count("sqlite") == 2
    postgres = [result for result in results if result["part"] == "postgres"]
    if postgres_programs() is None:
        assert "no Postgres on this machine" in postgres[0]["what"]
    else:
        assert len(postgres) == 3
        assert all(result["measured"] > 0 for result in postgres)


def test_the_overhead_of_dagster_is_measured_on_equal_results(tmp_path):
    write_text(tmp_path)
    one_run = {"seeds": [0], "arms": {"baseline": {}}}
    file = write_experiment(tmp_path / "tiny.yaml", corpus={"files": str(tmp_path / "text" / "*.txt")}, **one_run)
    results = measured(tmp_path, "dagster_overhead", "--experiment", str(file), "--steps", "12", "--turns", "1")
    found = {result["what"]: result["measured"] for result in results}
    assert found["of 7 tables, with other cells"] == 0
    assert found["mech run, one worker"] > 0
    assert found["bare script"] > 0


def test_every_part_of_the_benchmark_of_scale_measures_something(tmp_path):
    results = measured(tmp_path, "dagster_scale", "--runs", "2", "--steps", "5", "--turns", "1")
    assert {result["part"] for result in results} == {"register", "page"}
    assert all(result["measured"] > 0 for result in results if result["part"] != "page" or CHROMIUM)


def test_every_command_that_computes_nothing_is_started_by_its_benchmark(tmp_path):
    results = measured(tmp_path, "startup", "--turns", "1")
    assert [result["part"] for result in results] == [
        *("help", "tables", "sql", "history", "verify", "warehouse", "status"),
    ]
    assert all(result["ratio"] > 0 for result in results)


def test_faults_of_every_kind_are_done_and_counted(tmp_path):
    results = measured(tmp_path, "faults", "--kind", "damages", "--kind", "inputs", "--n", "6")
    assert {result["kind"] for result in results} == {"damages", "inputs"}
    assert sum(result["trials"] for result in results) == 2 * 6
    for result in results:
        assert sum(result[name] for name in ("survived", "named", "silent", "traceback", "lost")) == result["trials"]
