"""Bundles: readable without this package, whole or refused, and the same answers after they were brought back."""

import json
import random
import re
import shutil
import signal
import subprocess
import time
from dataclasses import replace

import duckdb
import polars as pl
import pytest
from safetensors.numpy import load_file

from mech_pipeline.errors import MechError
from mech_pipeline.exchange.bundle.bring_back import bring_back
from mech_pipeline.exchange.bundle.export import Wish, export
from mech_pipeline.exchange.bundle.manifest import MANIFEST, SUMS, check, described_files, read_manifest, write_manifest
from mech_pipeline.store.care.verify import verify_store
from mech_pipeline.store.reading.query import query
from mech_pipeline.store.store import Store
from tests.support.command_line import MECH, environment_of, finished_project, mech
from tests.support.docs_commands import blocks, for_tiny

QUESTIONS = [
    *(for_tiny(block.text) for block in blocks("docs/sql.md", "sql") if "snapshot" not in block.text),
    "select run, status, fingerprint from runs order by all",
    "select run, step, data_version, weights_sha256 from checkpoints order by all",
    "select run, update_step, position, example_id from batches order by all limit 500",
    "select run, metric, sum(value) from training_metrics group by all order by all",
    "select run, step, mechanism, value from mechanism_values order by all",
    "select run, detector, max(value) from head_scores group by all order by all",
    "select run, step, mechanism, component, sum(value), sum(value_later) from ledger group by all order by all limit 300",
    "select method, sum(value), count(*) from influence group by all order by all",
    "select document, count(*) from examples group by all order by all",
    "select * from formation order by all",
    "select run, artifact, rows, sha256 from tokens order by all",
    "select metric, count(*) from reliability group by all order by all",
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished project of its own, and the bundle that the command wrote of it."""
    home = tmp_path_factory.mktemp("exported") / "project"
    shutil.copytree(finished_project(), home)
    said = mech(home, "export", "tiny", "bundle").stdout
    return home, home / "bundle", said


@pytest.fixture
def copied(made, tmp_path):
    """A copy of the bundle, to be spoilt."""
    return shutil.copytree(made[1], tmp_path / "copy")


def test_the_export_says_what_it_wrote(made):
    _, bundle, said = made
    assert "files" in said
    assert "left" in said or "took" in said
    assert re.search(r"tiny.baseline.s0: \d+ states, last link of their chain [0-9a-f]{16}", said)
    assert not list(bundle.parent.glob(".bundle*"))
    names = {path.name for path in bundle.iterdir()}
    assert names == {
        *("README.md", "SHA256SUMS", "bundle.json", "experiment.yaml"),
        *("blobs", "figures", "reports", "specs", "tables"),
    }
    figures = {path.suffix for path in (bundle / "figures").iterdir()}
    assert figures == {".svg", ".pdf"}
    assert {path.name for path in (bundle / "reports").iterdir()} == {"tiny.html", "tiny.explore.html"}


def test_every_table_is_read_by_datasets_polars_and_duckdb_alike(made, tmp_path):
    import datasets

    home, bundle, _ = made
    datasets.config.HF_DATASETS_OFFLINE = True
    for path in sorted((bundle / "tables").glob("*.parquet")):
        name = path.stem
        (rows,) = query(home / "store", f"select count(*) from {name}").row(0)
        assert pl.read_parquet(path).height == rows
        assert duckdb.sql(f"select count(*) from '{path}'").fetchall() == [(rows,)]
        if name in ("examples", "batches", "ledger", "mechanism_values"):
            loaded = datasets.load_dataset(str(bundle), name, cache_dir=str(tmp_path / "cache"), split="train")
            assert loaded.num_rows == rows
            assert loaded.column_names == pl.read_parquet_schema(path).names()


def test_states_are_found_by_the_rows_that_name_them(made):
    _, bundle, _ = made
    for uri in pl.read_parquet(bundle / "tables" / "checkpoints.parquet")["uri"][:3]:
        assert {name.split(".")[0] for name in load_file(bundle / uri)} == {"model", "exp_avg", "exp_avg_sq"}


def test_the_card_says_whose_the_text_is_what_tables_mean_and_how_to_cite(made):
    card = (made[1] / "README.md").read_text()
    for said in (
        "config_name: ledger",
        "## How to cite",
        "## Licence of the training text",
        "not stated",
        "| `update_step` |",
    ):
        assert said in card
    assert "/tmp" not in card


def test_checksums_are_those_that_sha256sum_checks(made):
    done = subprocess.run(["sha256sum", "--check", "--quiet", SUMS], cwd=made[1], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def told(rows):
    """Each row as text; of numbers nine digits, since sums depend on the order in which a query adds."""
    return sorted(
        " ".join(f"{value:.9g}" if isinstance(value, float) else repr(value) for value in row) for row in rows.rows()
    )


def test_an_imported_store_gives_the_same_answers_and_is_whole(made, tmp_path):
    home, bundle, _ = made
    assert len(QUESTIONS) >= 20, "versions and times of commits, the view `snapshot`, are the new store's own"
    store = Store(tmp_path / "other")
    assert bring_back(store, bundle).experiment == "tiny"
    for sql in QUESTIONS:
        asked, answered = query(home / "store", sql), query(store.root, sql)
        assert told(asked) == told(answered), sql
    found = verify_store(store.files)
    assert (found.damage, found.orphans) == ([], [])
    assert bring_back(store, bundle) is None, "it is there already"


@pytest.mark.process
def test_what_was_left_out_is_computed_again_from_the_imported_states_with_the_bits_of_home(made, tmp_path):
    """Moments, order and chance are the bundle's: no update is trained again."""
    home, _, _ = made
    left_out = ("ledger", "ledger_balance", "ledger_tokens", "influence", "reliability", "gradients")
    export(Store(home / "store"), Wish("tiny", left_out=left_out), tmp_path / "bundle")
    fresh = tmp_path / "project"
    shutil.copytree(home, fresh, ignore=shutil.ignore_patterns("store", "bundle"))
    mech(fresh, "import", str(tmp_path / "bundle"))
    assert "training" not in mech(fresh, "run", "experiments/tiny.yaml").stdout
    for sql in (
        "select run, step, update_step, mechanism, example_id, component, value from ledger order by all",
        "select run, step, gradient, component, value from gradients order by all",
    ):
        ours = query(home / "store", sql)
        assert ours.height > 0
        assert ours.equals(query(fresh / "store", sql)), sql


@pytest.mark.process
def test_after_an_import_the_experiment_is_current(made, tmp_path):
    home, bundle, _ = made
    fresh = tmp_path / "project"
    shutil.copytree(home, fresh, ignore=shutil.ignore_patterns("store", "bundle"))
    assert "imported" in mech(fresh, "import", str(bundle)).stdout
    assert "nothing to recompute, everything is current" in mech(fresh, "run", "experiments/tiny.yaml").stdout
    again = mech(fresh, "export", "tiny", "again").stdout
    assert "states" in again
    assert read_manifest(fresh / "again").runs == read_manifest(bundle).runs
    assert "nothing to do" in mech(fresh, "import", "again").stdout


def test_a_hundred_flipped_bits_are_found(copied):
    manifest = read_manifest(copied)
    chance = random.Random(7)
    names = [file.name for file in manifest.files] + [MANIFEST, SUMS]
    weights = [(copied / name).stat().st_size ** 0.5 for name in names]
    for _ in range(100):
        path = copied / chance.choices(names, weights)[0]
        content = path.read_bytes()
        place = chance.randrange(8 * len(content))
        spoilt = bytearray(content)
        spoilt[place // 8] ^= 1 << place % 8
        path.write_bytes(spoilt)
        with pytest.raises(MechError):
            check(copied)
        path.write_bytes(content)
    check(copied)


def test_states_that_were_exchanged_together_with_their_sums_break_the_chain(copied):
    said = json.loads((copied / MANIFEST).read_text())
    states = said["runs"][0]["states"]
    states[1]["data_version"], states[2]["data_version"] = states[2]["data_version"], states[1]["data_version"]
    (copied / MANIFEST).write_text(json.dumps(said, indent=1) + "\n")
    with pytest.raises(MechError, match=f"the chain of run .* breaks at state {states[1]['step']}"):
        check(copied)


def newer(folder):
    said = json.loads((folder / MANIFEST).read_text()) | {"version": 2}
    (folder / MANIFEST).write_text(json.dumps(said))


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (newer, "has version 2, this program reads up to 1 → install a newer"),
        (lambda folder: (folder / MANIFEST).unlink(), "no bundle, or one that was copied in part"),
        (lambda folder: (folder / MANIFEST).write_text("{}"), "bundle.json is damaged"),
        (lambda folder: (folder / SUMS).unlink(), "SHA256SUMS is missing"),
        (lambda folder: shutil.rmtree(folder / "blobs"), "state.safetensors is missing.* more faults"),
        (lambda folder: (folder / "tables" / "ledger.parquet").unlink(), "tables/ledger.parquet is missing"),
        (lambda folder: (folder / "README.md").write_text("half"), "README.md has 4 bytes"),
        (shutil.rmtree, "there is no bundle"),
    ],
)
def test_what_is_wrong_with_a_bundle_is_named_and_nothing_is_imported(copied, tmp_path, spoil, problem):
    spoil(copied)
    store = Store(tmp_path / "other")
    with pytest.raises(MechError, match=problem):
        bring_back(store, copied)
    assert not (tmp_path / "other" / "tables").exists()
    assert not (tmp_path / "other" / "blobs").exists()


def resealed(folder):
    """With sums of what is there now, as who wanted to deceive would, or a program that wrote it wrongly."""
    manifest = read_manifest(folder)
    files = tuple(file for file in described_files(folder) if file.name not in (MANIFEST, SUMS))
    write_manifest(folder, replace(manifest, files=files))


def of_another_step(folder):
    """Weights and moments of two states, exchanged."""
    one, other = pl.read_parquet(folder / "tables" / "checkpoints.parquet")["uri"][1:3]
    (folder / one).rename(folder / "aside")
    (folder / other).rename(folder / one)
    (folder / "aside").rename(folder / other)


def rows_without(table, condition):
    def spoil(folder):
        path = folder / "tables" / f"{table}.parquet"
        pl.read_parquet(path).filter(~condition).write_parquet(path)

    return spoil


def other_tokenizer(folder):
    (path,) = {folder / uri for uri in tokenizers(folder)}
    path.write_text(path.read_text().replace("def", "fed"))


def tokenizers(folder):
    return pl.read_parquet(folder / "tables" / "tokens.parquet").filter(artifact="tokenizer")["uri"]


def from_the_future(folder):
    shutil.copy(folder / "tables" / "runs.parquet", folder / "tables" / "dreams.parquet")


def other_type(folder):
    path = folder / "tables" / "mechanism_values.parquet"
    pl.read_parquet(path).with_columns(value=pl.lit("much")).write_parquet(path)


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (of_another_step, "table checkpoints names .*state.safetensors, which is not in it"),
        (rows_without("checkpoints", pl.col("step") == 6), "states of run .* are not those of its chain"),
        (rows_without("runs", pl.col("arm") == "control"), "its manifest and its table runs name other runs"),
        (other_tokenizer, "table tokens names .*tokenizer.*, which is not in it"),
        (lambda folder: (folder / tokenizers(folder)[0]).unlink(), "table tokens names .*, which is not in it"),
        (from_the_future, "table dreams of bundle .* is unknown here → install a newer"),
        (other_type, "table mechanism_values of bundle .* → install a newer"),
    ],
)
def test_rows_and_files_that_do_not_belong_together_are_named_though_all_sums_are_right(
    copied, tmp_path, spoil, problem
):
    spoil(copied)
    resealed(copied)
    store = Store(tmp_path / "other")
    with pytest.raises(MechError, match=problem):
        bring_back(store, copied)
    assert not (tmp_path / "other" / "tables").exists()
    assert not (tmp_path / "other" / "blobs").exists()


def test_a_store_with_other_runs_of_these_names_is_left_alone(made, tmp_path):
    _, bundle, _ = made
    store = Store(tmp_path / "other")
    bring_back(store, bundle)
    with store.reading("runs") as connection:
        rows = (
            connection.sql("select * from runs where run = 'tiny.baseline.s0'")
            .pl()
            .with_columns(fingerprint=pl.lit("0" * 64))
        )
    store.write("runs", rows.to_arrow(), replace={"run": ["tiny.baseline.s0"]})
    with pytest.raises(MechError, match="the store has another run tiny.baseline.s0"):
        bring_back(store, bundle)
    store.delete("runs", "run = 'tiny.baseline.s0'")
    with pytest.raises(MechError, match="and not all of them; nothing was imported"):
        bring_back(store, bundle)


def test_an_import_that_was_killed_is_completed_by_the_next(made, tmp_path, monkeypatch):
    _, bundle, _ = made
    store, written = Store(tmp_path / "other"), []

    def stop(self, name, rows, **how):
        if len(written) == 6:
            raise KeyboardInterrupt
        written.append(name)
        return whole(self, name, rows, **how)

    whole = Store.write
    monkeypatch.setattr(Store, "write", stop)
    with pytest.raises(KeyboardInterrupt):
        bring_back(store, bundle)
    monkeypatch.undo()
    assert query(store.root, "select count(*) from runs").row(0) == (0,)
    bring_back(store, bundle)
    assert verify_store(store.files).damage == []


@pytest.mark.parametrize(
    ("wish", "problem"),
    [
        (Wish("tinny"), "there is no experiment 'tinny' → did you mean 'tiny'"),
        (Wish("tiny", left_out=("legder",)), "there is no table 'legder'"),
        (Wish("tiny", left_out=("checkpoints",)), "table checkpoints cannot be left out"),
    ],
)
def test_exports_that_cannot_be_are_named(made, tmp_path, wish, problem):
    with pytest.raises(MechError, match=problem):
        export(Store(made[0] / "store"), wish, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_a_folder_that_is_there_is_not_written_over(made):
    home, bundle, _ = made
    with pytest.raises(MechError, match="is there already"):
        export(Store(home / "store"), Wish("tiny"), bundle)


def test_what_is_left_out_is_said_and_a_bundle_without_an_experiment_file_has_no_figures(made, tmp_path):
    written = export(Store(made[0] / "store"), Wish("tiny", left_out=("ledger", "gradients")), tmp_path / "bundle")
    assert written.left_out == ("ledger", "gradients")
    assert not (tmp_path / "bundle" / "tables" / "ledger.parquet").exists()
    assert not (tmp_path / "bundle" / "figures").exists()
    assert bring_back(Store(tmp_path / "other"), tmp_path / "bundle") is not None


@pytest.mark.process
def test_a_killed_export_leaves_no_bundle_and_the_next_one_is_whole(made, tmp_path):
    home, _, _ = made
    process = subprocess.Popen([*MECH, "export", "tiny", str(tmp_path / "bundle")], cwd=home, env=environment_of(home))
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not list(tmp_path.glob(".bundle.unfinished/blobs/*")):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "bundle").exists(), "it was killed in the middle"
    assert (tmp_path / ".bundle.unfinished").exists()
    mech(home, "export", "tiny", str(tmp_path / "bundle"))
    assert not (tmp_path / ".bundle.unfinished").exists()
    assert "whole" in mech(home, "import", str(tmp_path / "bundle"), "--check").stdout
