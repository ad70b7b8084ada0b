"""`benchmarks/discovery.py` scores what a store holds: kinds beside baselines, planted mechanisms, false discoveries."""

import os

import polars as pl

from mech_pipeline.pipeline.discovery import discovery, movement, needs
from tests.support import tiny
from tests.support.once import trained
from tests.support.places import ROOT
from tests.support.warm_python import warm_python

BASELINES = {"loss curves, k-means", "last window, k-means", "bins by frequency", "bins by compression"}


def scored(store, *options):
    return warm_python(["benchmarks/discovery.py", *options, "--root", store.root, "--smallest", "5"], ROOT, os.environ)


def test_runs_of_a_store_are_scored_in_one_table_with_the_baselines(local_store, folder, tmp_path):
    change = {"discovery": {"tokens": 40, "smallest": 5}, "influence": {}, "ledger": {}, "gradients": []}
    run = trained(local_store, tiny.spec_of(**change))
    movement.compute_movement(run, run.planned)
    discovery.compute_discovery(run)
    asked = (
        "tiny",
        "--seeds",
        "0",
        "--planted",
        "tiled+=induction_copy_advantage:prefix_matching",
        "--csv",
        str(tmp_path),
    )
    done = scored(local_store, *asked)
    assert done.returncode == 0, done.stderr
    table = pl.read_csv(tmp_path / "tiny.agreement.csv")
    assert set(table["labels"]) > {
        *BASELINES,
        "courses, HDBSCAN",
        "paths, HDBSCAN",
        "shares, HDBSCAN",
        "random, sizes of the first",
    }
    whole = table.filter(pl.col("labels").is_in(BASELINES))
    assert (whole["clustered"] == 1).all()
    assert ((table["v_measure"] >= 0) & (table["v_measure"] <= 1)).all()
    recall = pl.read_csv(tmp_path / "tiny.recall.csv")
    assert recall["planted"].to_list() == ["tiled"] * 3
    assert 0 < recall["tokens"][0] < 30, "repeated tokens of the 30 tiled ones"
    assert not recall["found"].any(), "nothing can have formed in 24 updates"
    assert set(table["against"]) == {"kind", "skill"}
    stable = pl.read_csv(tmp_path / "tiny.stability.csv")
    assert set(zip(stable["over"], stable["of"], strict=True)) == {("draws", "clusters"), ("draws", "discoveries")}
    assert (stable["overlap"].drop_nulls() <= 1).all()
    null = scored(local_store, "tiny", "--nulls", "baseline", "--csv", str(tmp_path / "null"))
    assert null.returncode == 0, null.stderr
    false = pl.read_csv(tmp_path / "null" / "tiny.false_discoveries.csv")
    assert false["runs"].to_list() == [1] * 3
    assert false["discoveries"].to_list() == [0] * 3
    assert false["fewer_than"][0] > 0.9, "one run shows next to nothing"
    assert false["a_run_low"][0] == 0
    assert false["a_run_high"][0] > 3
    assert not (tmp_path / "null" / "tiny.agreement.csv").exists()
    control = scored(local_store, "tiny", "--forms", "baseline", "--csv", str(tmp_path / "control"))
    assert control.returncode == 0, control.stderr
    assert pl.read_csv(tmp_path / "control" / "tiny.positive_control.csv")["with_one"].to_list() == [0] * 3


def test_what_tokens_need_is_looked_at_anew_and_scored_in_the_same_tables(local_store, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("MECH_HOME", str(folder))
    change = {"discovery": {"tokens": 40, "smallest": 5, "by": "needs"}, "influence": {}, "ledger": {}, "gradients": []}
    needs.compute_needs(trained(local_store, tiny.spec_of(**change)))
    done = scored(local_store, "tiny", "--planted", "tiled+=induction_copy_advantage", "--csv", str(tmp_path))
    assert done.returncode == 0, done.stderr
    recall = pl.read_csv(tmp_path / "tiny.recall.csv")
    assert recall["by"].to_list() == ["needs"]
    assert not recall["found"].any(), "nothing can have formed in 24 updates"
    assert "needs, k-means" in set(pl.read_csv(tmp_path / "tiny.agreement.csv")["labels"])
    null = scored(local_store, "tiny", "--nulls", "baseline", "--csv", str(tmp_path / "null"))
    assert null.returncode == 0, null.stderr
    false = pl.read_csv(tmp_path / "null" / "tiny.false_discoveries.csv")
    assert (false["by"].to_list(), false["runs"].to_list(), false["discoveries"].to_list()) == (["needs"], [1], [0])


def test_what_is_misspelt_is_refused_in_words(local_store, folder):
    tiny.prepare(local_store, tiny.spec_of())
    done = scored(local_store, "other")
    assert done.returncode == 2
    assert "no run in" in done.stderr


def test_a_pattern_that_is_none_is_refused_in_words(local_store, folder):
    done = scored(local_store, "tiny", "--planted", "ioi~(=ioi_accuracy")
    assert done.returncode == 2
    assert "no regular expression" in done.stderr
