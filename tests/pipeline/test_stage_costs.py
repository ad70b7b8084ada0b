"""What stages took is kept beside their results, and nothing is computed from it."""

import shutil
import time
from itertools import product

import pytest

from mech_pipeline.data.corpora import corpus_sha256, read_corpus
from mech_pipeline.pipeline import alone
from mech_pipeline.pipeline.plan import Plan
from mech_pipeline.pipeline.stage_costs import TABLE, UnitCost, measured, unit_costs
from mech_pipeline.pipeline.tokens import probe_rows
from mech_pipeline.reports.costs import NOT_MEASURED, period, stage_rows, trained_before
from mech_pipeline.reports.subject import Study
from mech_pipeline.spec.experiment import parse_experiment
from mech_pipeline.store.reading import connect
from mech_pipeline.store.reading.query import query
from mech_pipeline.store.store import Store
from tests.support import tiny

SMALL = {"influence": {}, "seeds": [0], "arms": {"baseline": {}}}
RUN = "tiny.baseline.s0"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    tiny.write_text(tmp_path)
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
def test_every_stage_of_a_run_leaves_what_it_took_and_a_store_without_that_is_current(folder, local_store):
    experiment = parse_experiment(tiny.TINY | SMALL)
    specs = experiment.runs()
    corpora = {spec.run: corpus_sha256(read_corpus(spec.corpus)) for spec in specs}
    done = alone.compute_all(local_store, specs, corpora, experiment)

    sql = "select stage, wall_seconds, cpu_seconds, peak_bytes, cells, machine from stage_costs where run = ?"
    rows = query(local_store.root, sql.replace("?", f"'{RUN}'")).rows()
    assert {row[0] for row in rows} == {stage for stage, name in done if name == RUN}
    assert all(wall > 0 and cpu >= 0 and peak > 1e6 and cells > 0 for _, wall, cpu, peak, cells, _ in rows)
    with connect(local_store.root) as connection:
        told = {row.stage: row for row in stage_rows(Study(connection, experiment, specs))}
        assert NOT_MEASURED not in repr(told.values())
        assert trained_before(Study(connection, experiment, specs)) == []

    for table, folder in product((TABLE, probe_rows.TABLE), ("tables", "checksums")):  # as a store was before them
        shutil.rmtree(f"{local_store.root}/{folder}/{table}", ignore_errors=True)
    plan = Plan(local_store, specs, corpora, experiment)
    plan.look()
    assert not any(plan.ready(name) for name in (RUN, experiment.experiment))
    with connect(local_store.root) as connection:
        study = Study(connection, experiment, specs)
        assert {row.stage for row in stage_rows(study)} == set(told)
        assert all(row.wall == NOT_MEASURED for row in stage_rows(study))
        assert period(study) == NOT_MEASURED
        assert trained_before(study) == [RUN]


def test_a_stack_divides_what_it_took_and_work_that_made_nothing_or_failed_leaves_no_row(local_store: Store):
    first, second, idle = (tiny.spec_of(seed) for seed in (0, 1, 2))
    with measured(local_store, "training", [first, second, idle]) as work:
        time.sleep(0.02)
        work.cells = {first.run: 3, second.run: 5}
    with pytest.raises(RuntimeError), measured(local_store, "training", [idle]) as work:
        work.cells = {idle.run: 1}
        raise RuntimeError
    rows = query(local_store.root, "select run, cells, wall_seconds, first_step from stage_costs order by run").rows()
    assert [(run, cells, step) for run, cells, _, step in rows] == [(first.run, 3, None), (second.run, 5, None)]
    assert rows[0][2] == rows[1][2] >= 0.01


def test_the_peak_of_memory_is_that_of_the_work(local_store: Store):
    spec = tiny.spec_of()
    for size in (300_000_000, 1):
        with measured(local_store, "analysis", [spec], [size]) as work:
            held = bytearray(size)
            held[::4096] = b"1" * len(held[::4096])
            del held
            work.cells[spec.run] = 1
    small, large = query(local_store.root, "select peak_bytes from stage_costs order by last_step").rows()
    assert large[0] - small[0] > 200_000_000


def test_units_are_medians_over_pieces_of_work_and_the_largest_memory(local_store):
    work = {
        "run": "r",
        "cells": 2,
        "first_step": None,
        "last_step": None,
        "device": "d",
        "machine": "m",
        "wall_seconds": 1.0,
    }
    for number, (stage, seconds, memory) in enumerate([("a", 2.0, 5), ("a", 4.0, 7), ("a", 20.0, 6), ("b", 90.0, 1)]):
        row = work | {
            "stage": stage,
            "began": str(number),
            "cpu_seconds": seconds,
            "peak_bytes": memory,
            "peak_gpu_bytes": None,
        }
        columns = {name: [value] for name, value in row.items()}
        local_store.write(TABLE, columns, replace={name: columns[name] for name in ("run", "stage", "began")})
    assert unit_costs(local_store, ["r"]) == [UnitCost("b", 45.0, 1, None), UnitCost("a", 2.0, 7, None)]
    assert unit_costs(local_store, ["other"]) == []
