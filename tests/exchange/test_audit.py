"""`mech audit`: the right batches leave rounding, one altered example of 32 does not."""

import json
import statistics

import polars as pl
import pytest
import torch

from mech_pipeline.errors import MechError
from mech_pipeline.exchange.audit import TOLERANCE, audit
from mech_pipeline.exchange.claim import Claim, read_claim, stored_claim
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.pipeline.training.batches import write_batches
from mech_pipeline.store.reading.query import query
from tests.support import tiny
from tests.support.command_line import mech
from tests.support.once import trained

pytestmark = pytest.mark.usefixtures("folder")
EVERY = {"training": {"steps": 200, "batch": 32}, "checkpoints": {"every": 1}}


def order_of(run):
    """The claimed batches as a frame that can be altered."""
    return query(run.store.root, f"select update_step, position, example_id from batches where run = '{run.spec.run}'")


def altered(frame, step, position=7):
    """With one example of one batch exchanged for an example of the next batch."""
    other = frame.filter(pl.col("update_step") == (step + 1) % (frame["update_step"].max() + 1))["example_id"][0]
    here = (pl.col("update_step") == step) & (pl.col("position") == position)
    return frame.with_columns(pl.when(here).then(pl.lit(other)).otherwise(pl.col("example_id")).alias("example_id"))


def run_of(store, **change):
    run = trained(store, tiny.spec_of(**change))
    write_batches(run.store, run.spec)
    return run


def everywhere_altered(frame):
    """Every batch has one example of another batch."""
    for step in range(frame["update_step"].max() + 1):
        frame = altered(frame, step, step % 32)
    return frame


@pytest.mark.slow
def test_the_right_batches_leave_rounding_and_one_altered_example_of_32_a_hundred_times_more(local_store):
    """200 updates of which every state is kept, added up in another order than training did: residuals are real roundings."""
    run = run_of(local_store, **EVERY)
    elsewhere = run.spec.model_copy(update={"training": run.spec.training.model_copy(update={"micro_batches": 8})})
    foreign = OpenRun(run.store, run.spec)
    foreign.trainer.training = elsewhere.training
    right = list(audit(foreign, stored_claim(foreign), 0, 200))
    wrong = list(audit(foreign, Claim(foreign, everywhere_altered(order_of(run)), "altered"), 0, 200))
    assert len(right) == len(wrong) == 200
    assert {each.evidence for each in right} == {"kept"}
    largest, smallest = max(each.residual for each in right), min(each.residual for each in wrong)
    assert 0 < largest <= 1e-5
    assert smallest >= 100 * largest
    assert smallest > TOLERANCE
    print(f"largest right {largest:.3g}, smallest altered {smallest:.3g}")


def test_a_whole_wrong_batch_is_about_one(local_store):
    run = run_of(local_store, **EVERY)
    frame = order_of(run).with_columns((200 - 1 - pl.col("update_step")).alias("update_step"))
    found = [each.residual for each in audit(run, Claim(run, frame, "reversed"), 0, 200)]
    assert 0.1 < statistics.median(found) < 3


def test_between_two_checkpoints_each_update_is_judged_by_its_replayed_state(local_store):
    run = run_of(local_store)
    right = list(audit(run, stored_claim(run), 0, 24))
    assert [each.first_step for each in right] == list(range(24))
    assert {each.evidence for each in right} == {"replayed"}
    assert {each.residual for each in right} == {0.0}
    wrong = list(audit(run, Claim(run, altered(order_of(run), 13, 2), "altered"), 6, 18))
    assert [each.first_step for each in wrong if each.residual > TOLERANCE] == [13]


def test_a_replay_with_other_bits_is_judged_by_stretches(local_store):
    run = run_of(local_store)
    run.trainer.training = run.spec.training.model_copy(update={"micro_batches": 4})
    found = list(audit(run, stored_claim(run), 6, 24))
    assert [(each.first_step, each.last_step, each.evidence) for each in found] == [
        (6, 12, "kept"),
        (12, 18, "kept"),
        (18, 24, "kept"),
    ]
    assert 0 < max(each.residual for each in found) < TOLERANCE
    wrong = list(audit(run, Claim(run, altered(order_of(run), 13, 2), "altered"), 6, 24))
    assert [each.first_step for each in wrong if each.residual > TOLERANCE] == [12]


def test_an_update_that_moves_no_weight_is_judged_by_its_momentum(local_store):
    """As in the first update of a schedule that begins at a rate of 0."""
    run = run_of(local_store, optimizer={"learning_rate": 1e-30, "warmup_steps": 5})
    (right, *_) = audit(run, stored_claim(run), 0, 3)
    (wrong, *_) = audit(run, Claim(run, altered(order_of(run), 0, 2), "altered"), 0, 3)
    assert (right.moved, right.judged_by, right.residual) == (0.0, "momentum", 0.0)
    assert wrong.residual > TOLERANCE


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda f: f.drop("position"), "has no column position"),
        (lambda f: f.filter(pl.col("update_step") != 3), "has no batch of update 3"),
        (lambda f: f.filter(pl.col("position") != 3), "are not 0 to 6"),
        (lambda f: f.with_columns(pl.lit("feedfeedfeedfeed").alias("example_id")), "is not in the pool"),
        (lambda f: f.with_columns(pl.lit("x").alias("position")), "no whole numbers"),
    ],
)
def test_a_claim_that_does_not_fit_is_named(local_store, tmp_path, spoil, problem):
    run = run_of(local_store)
    spoil(order_of(run)).write_csv(tmp_path / "order.csv")
    with pytest.raises(MechError, match=problem):
        list(audit(run, read_claim(run, tmp_path / "order.csv"), 0, 24))


def test_files_that_are_no_claim_are_named(local_store, tmp_path):
    run = run_of(local_store)
    (tmp_path / "order.parquet").write_bytes(b"nothing")
    for name, problem in (("none.csv", "there is no file"), ("order.parquet", "cannot be read")):
        with pytest.raises(MechError, match=problem):
            read_claim(run, tmp_path / name)


def test_checkpoints_without_moments_are_refused_in_words(local_store):
    run = run_of(local_store)
    run.__dict__["brings"] = run.brings - {next(need for need in run.brings if need == "moments")}
    with pytest.raises(MechError, match="do not bring moments"):
        list(audit(run, stored_claim(run), 0, 24))


@pytest.mark.process
def test_the_command_says_what_it_found_and_ends_with_one_where_a_batch_is_another(tmp_path, local_store):
    run, name = run_of(local_store), "tiny.baseline.s0"
    said = mech(tmp_path, "audit", name, "--output", "rows.json").stdout
    assert "24 updates, 24 judged one by one" in said
    assert "every state was made from the one before" in said
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert (len(rows), rows[3]["evidence"]) == (24, "replayed")
    altered(order_of(run), 13, 2).write_parquet(tmp_path / "order.parquet")
    wrong = mech(tmp_path, "audit", name, "--order", "order.parquet", "--output", "rows.csv", check=False)
    assert wrong.returncode == 1
    assert "update 13: residual" in wrong.stdout
    assert "1 of 24 judgements" in wrong.stderr
    assert pl.read_csv(tmp_path / "rows.csv")["residual"].max() > TOLERANCE
    for arguments, problem in (
        (("audit", "tiny.baseline.s7"), "is unknown to the store"),
        (("audit", name, "--steps", "1:99"), "keeps steps 0 to 24, not 1:99"),
        (("audit", name, "--steps", "all"), "are not FROM:TO"),
    ):
        failed = mech(tmp_path, *arguments, check=False)
        assert failed.returncode == 1
        assert problem in failed.stderr
        assert len(failed.stderr.splitlines()) == 1
    assert torch.get_num_threads() == 1
