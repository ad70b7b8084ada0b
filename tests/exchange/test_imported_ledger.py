"""A run that was trained here, written as GPT-NeoX would, and brought back with its batches: its ledger is the original's."""

import json
import shutil

import numpy as np
import polars as pl
import pytest
import torch

from mech_pipeline.errors import MechError
from mech_pipeline.exchange.audit import TOLERANCE, audit
from mech_pipeline.exchange.claim import stored_claim
from mech_pipeline.exchange.suites.converting import zero
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.pipeline.training.batches import write_batches
from mech_pipeline.reports.ledger.queries import ledger_by_component
from mech_pipeline.resolve import resolve
from mech_pipeline.spec.experiment import parse_experiment
from mech_pipeline.spec.fingerprint import file_sha256
from mech_pipeline.store.reading.query import query
from mech_pipeline.store.store import Store
from mech_pipeline.training.architectures import transformers_config
from tests.exchange.test_neox import write_zero1
from tests.exchange.test_suites import computed
from tests.support import tiny

STEPS = (0, 6, 12)
MODEL = {"family": "gpt_neox", "layers": 2, "heads": 2, "d_model": 32, "d_mlp": 64, "vocabulary": 280}
OWN = {
    "model": MODEL,
    "training": {"steps": 12, "batch": 8},
    "checkpoints": {"every": 6},
    "optimizer": {"warmup_steps": 3, "learning_rate": 1e-3, "weight_decay": 0.0},
    "influence": {},
    "gradients": [],
    "seeds": [0],
    "arms": {"baseline": {}},
    "ledger": {"mechanisms": ["induction_copy_advantage"]},
    "formation": [{"mechanism": "induction_copy_advantage", "threshold": 9.0, "sustain": 2}],
    "detectors": [],
    "mechanisms": ["induction_copy_advantage"],
}
LEDGER = "select step, update_step, term, example_id, component, value from ledger order by all"


_READ = {}


@pytest.fixture(autouse=True)
def each_content_is_unpickled_once(monkeypatch):
    """The process that does it takes seconds to start, and the tests here read the same files again and again."""
    unpickled = zero.tensors_of

    def remembered(paths, scratch):
        keys = [file_sha256(path) for path in paths]
        new = [(key, path) for key, path in zip(keys, paths, strict=True) if key not in _READ]
        if new:
            found = unpickled([path for _, path in new], scratch)
            _READ.update(zip([key for key, _ in new], found, strict=True))
        return [_READ[key] for key in keys]

    monkeypatch.setattr(zero, "tensors_of", remembered)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A small Pythia, trained here with its ledger, and its states and batches as others would publish them."""
    home = tmp_path_factory.mktemp("original")
    tiny.write_text(home)
    store = Store(home / "store")
    experiment = resolve(parse_experiment(tiny.TINY | OWN), home)
    computed(store, experiment)
    run = OpenRun(store, experiment.runs()[0])
    write_batches(store, run.spec)
    return store, run, published(run, home / "neox")


@pytest.fixture
def place(made, tmp_path):
    """A copy of what was published, to be spoilt."""
    return shutil.copytree(made[2], tmp_path / "neox")


def published(run, place):
    """Its states as native checkpoints with masters, moments and padding, and its batches as a table."""
    flat = run.trainer.flat
    for step in STEPS:
        state = run.state(step)
        parts = {"model": state.theta, "exp_avg": state.m, "exp_avg_sq": state.v}
        write_zero1(place / f"global_step{step}", {part: flat.named(vector) for part, vector in parts.items()})
    config = transformers_config(run.spec.model, 280, run.spec.data.context, "eager")
    config.save_pretrained(place)
    order = query(run.store.root, "select run, update_step, position, example_id from batches")
    order.write_parquet(place / "batches.parquet")
    return place


def asked_of(place, **change):
    """The same experiment, with its states from outside."""
    batches = {"batches": str(place / "batches.parquet")} | change.pop("imported", {})
    asked = {name: value for name, value in OWN.items() if name not in ("model", "checkpoints")}
    asked["training"] = change.pop("training", {"threads": 1})
    asked |= {"imported": {"layout": "neox", "place": str(place)} | batches} | change
    written = {
        name: value
        for name, value in tiny.TINY.items()
        if name not in ("model", "checkpoints", "training", "optimizer")
    }
    return parse_experiment(written | asked)


def brought_back(store, place, made, **change):
    """Its run, imported and computed."""
    experiment = resolve(asked_of(place, **change), made[1].spec.home)
    computed(store, experiment)
    return OpenRun(store, experiment.runs()[0])


def shifted(place, step, by):
    """Published weights that another machine would have ended in."""
    path = place / f"global_step{step}" / "zero_pp_rank_0_mp_rank_00_optim_states.pt"
    said = torch.load(path)
    groups = said["optimizer_state_dict"]["single_partition_of_fp32_groups"]
    groups[0] = groups[0] + by * torch.randn(groups[0].shape, generator=torch.Generator().manual_seed(1))
    torch.save(said, path)


def test_the_ledger_of_an_imported_window_is_the_original_s(made, place, tmp_path):
    store = made[0]
    other = brought_back(Store(tmp_path / "other"), place, made)
    assert other.spec.training.batch == 8, "as the table has it"
    ours, theirs = query(store.root, LEDGER), query(other.store.root, LEDGER)
    assert ours.height > 1000
    assert ours.equals(theirs), "the same rows to the last bit"
    assert query(other.store.root, "select count(*) from batches").item() == 12 * 8
    assert query(other.store.root, "select caveats from runs").item().startswith("trained elsewhere: a replay")


def test_what_other_kernels_leave_is_a_line_of_its_own_and_the_window_balances(made, place, tmp_path):
    """The published state at step 12 is a little away from the replayed one: everything else is the replayed twin's."""
    store = made[0]
    shifted(place, 12, 1e-3)
    other = brought_back(Store(tmp_path / "other"), place, made)
    found = query(
        other.store.root, f"select step, term, component, value from ({LEDGER}) where term = 'replay_mismatch'"
    )
    assert set(found["step"]) == {12}
    known = dict(query(store.root, "select step, change from ledger_balance").rows())
    balance = query(other.store.root, "select step, change, explained from ledger_balance order by step")
    assert balance.height == 2
    for step, change, explained in balance.rows():
        assert explained == pytest.approx(change, abs=2e-6)
        away = found["value"].sum() if step == 12 else 0.0
        assert change == pytest.approx(known[step] + away, abs=2e-6)
    assert abs(found["value"].sum()) > 1e-5, "the difference can be seen"
    within = "select step, update_step, term, example_id, component, value from ledger where term <> 'replay_mismatch' order by all"
    assert query(other.store.root, within).equals(query(store.root, LEDGER))
    with other.store.reading("ledger", "examples", "mechanism_values") as connection:
        groups = ledger_by_component(connection, other.spec.run, "induction_copy_advantage")
    (last,) = groups.filter(step=12, group="replay mismatch")["value"]
    assert last == pytest.approx(found["value"].sum(), abs=1e-6), "reports show it as a line of its own"


def token_file(run, path, updates=12):
    """What Pythia's trainings read: rows of token ids of two bytes, update after update."""
    rows = np.concatenate([run.trainer.pool[run.trainer.batch(step)].numpy() for step in range(updates)])
    rows.astype(np.uint16).tofile(path)
    return {"imported": {"batches": str(path)}, "training": {"batch": 8}}


def test_pre_shuffled_tokens_are_the_pool_and_the_order(made, place, tmp_path):
    """Without a word of how examples were drawn: their ids follow from their tokens, so the ledger is the original's."""
    store, run, _ = made
    other = brought_back(Store(tmp_path / "other"), place, made, **token_file(run, tmp_path / "document.bin"))
    assert other.spec.imported.updates == (0, 12)
    assert query(other.store.root, LEDGER).equals(query(store.root, LEDGER))
    found = query(other.store.root, "select distinct kind, document, n_tokens from examples")
    assert found.rows() == [("given", "document.bin", 16)]
    seen = "select count(distinct example_id) from batches"
    assert query(other.store.root, "select count(*) from examples").item() == query(store.root, seen).item()
    first = query(
        other.store.root, 'select "offset" from examples join batches using (example_id) where update_step = 0'
    )
    assert set(first["offset"]) == {32 * place for place in range(8)}


def test_a_token_file_that_ends_early_gives_the_windows_that_it_reaches(made, place, tmp_path):
    run = made[1]
    other = brought_back(Store(tmp_path / "other"), place, made, **token_file(run, tmp_path / "document.bin", 9))
    assert query(other.store.root, "select distinct step from ledger").rows() == [(6,)]


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-3]), "no whole number of rows of 16 tokens"),
        (
            lambda path: path.write_bytes(path.read_bytes()[: 32 * 8 * 5]),
            "has 5 batches of 8, which reach no second revision",
        ),
        (lambda path: path.write_bytes(b"\xff" * path.stat().st_size), "has token 65535, and the model 280"),
        (lambda path: path.unlink(), "there is no file"),
    ],
)
def test_token_files_that_do_not_fit_are_named(made, place, tmp_path, spoil, problem):
    run = made[1]
    asked = token_file(run, tmp_path / "document.bin")
    spoil(tmp_path / "document.bin")
    store = Store(tmp_path / "other")
    with pytest.raises(MechError, match=problem):
        brought_back(store, place, made, **asked)
    assert query(store.root, "select count(*) from examples").item() == 0


def test_other_stages_that_replay_are_refused_where_bits_differ(made, place, tmp_path):
    shifted(place, 12, 1e-3)
    other = brought_back(Store(tmp_path / "other"), place, made)
    other.replay(0, 6)
    with pytest.raises(MechError, match="does not reach revision 12 bit for bit: it had other kernels"):
        other.replay(6, 12)


def test_windows_whose_batches_are_not_known_have_no_account(made, place, tmp_path):
    order = pl.read_parquet(place / "batches.parquet")
    order.filter(pl.col("update_step") >= 6).write_csv(place / "late.csv")
    other = brought_back(Store(tmp_path / "other"), place, made, imported={"batches": str(place / "late.csv")})
    assert query(other.store.root, "select distinct step from ledger").rows() == [(12,)]


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda f: f.filter(pl.col("update_step") != 3), "has no batch of update 3"),
        (
            lambda f: f.filter((pl.col("update_step") != 3) | (pl.col("position") > 0)),
            "the places of update 3 are not 0 to 7",
        ),
        (lambda f: f.drop("example_id"), "has no column example_id"),
        (lambda f: f.with_columns(pl.lit("feedfeedfeedfeed").alias("example_id")), "example feed.* is not in the pool"),
        (
            lambda f: pl.concat([f.with_columns(run=pl.lit(name)) for name in "ab"]),
            "has batches of a, b, and none of tiny.baseline.s0",
        ),
        (lambda f: f.clear(), "has no rows"),
    ],
)
def test_batches_that_do_not_fit_are_named(made, place, tmp_path, spoil, problem):
    spoil(pl.read_parquet(place / "batches.parquet")).write_parquet(place / "batches.parquet")
    store = Store(tmp_path / "other")
    with pytest.raises(MechError, match=problem):
        brought_back(store, place, made)
    assert query(store.root, "select count(*) from ledger").item() == 0
    assert json.loads((place / "config.json").read_text())["model_type"] == "gpt_neox"


def test_a_schedule_whose_end_is_not_told_is_not_guessed(made, place, tmp_path):
    changed = {"optimizer": OWN["optimizer"] | {"schedule": "cosine"}}
    with pytest.raises(MechError, match=r"optimizer.schedule of run tiny.baseline.s0 is cosine, and where it ended"):
        brought_back(Store(tmp_path / "other"), place, made, **changed)


def test_an_imported_run_is_audited_against_its_batches(made, place, tmp_path):
    """Its own states leave rounding; a state that was moved away does not."""
    shifted(place, 12, 1e-3)
    other = brought_back(Store(tmp_path / "other"), place, made)
    found = list(audit(other, stored_claim(other), 0, 12))
    assert [each.evidence for each in found] == ["replayed"] * 6 + ["kept"]
    assert max(each.residual for each in found[:6]) <= TOLERANCE
    assert found[6].residual > 100 * TOLERANCE
