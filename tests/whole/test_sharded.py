"""Sharded training (FSDP2): the same bits for one, two and four processes, for every family and after a kill."""

import os
import signal
import time

import pytest
import torch
from torch import multiprocessing

from mech_pipeline.errors import MechError
from mech_pipeline.pipeline.training import training
from mech_pipeline.spec.training import Training
from mech_pipeline.store.reading.query import query
from mech_pipeline.store.store import Store
from mech_pipeline.training.flat import Slot
from mech_pipeline.training.update.norm import norm_of_rows, row_squares
from tests.support.ranks import RUN, compare_shards_with_one_process, linux, rank_pid, torchrun
from tests.support.tiny import checkpoint_hashes, prepare, spec_of

SHARDED = {"steps": 24, "batch": 8, "micro_batches": 4, "sharded": True}


@pytest.mark.parametrize("processes", [2, 4])
def test_shards_train_the_same_bits_as_one_process(folder, request, processes):
    spec = spec_of(training=SHARDED)
    store, alone = Store(folder / "shared"), Store(folder / "alone")
    for each in (store, alone):
        prepare(each, spec)
    process = torchrun(folder, request.config.rootpath, "--standalone", "--nproc-per-node", str(processes))
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    assert "24/24 updates" in output
    training.train(alone, spec)
    assert checkpoint_hashes(store, RUN) == checkpoint_hashes(alone, RUN)
    metrics = "select step, metric, value from training_metrics order by all"
    assert query(store.root, metrics).equals(query(alone.root, metrics))


@linux
def test_a_killed_rank_of_a_sharded_run_is_continued_by_one_process(folder, request):
    spec = spec_of(training=SHARDED | {"steps": 3000}, checkpoints={"every": 100})
    store, alone = Store(folder / "shared"), Store(folder / "alone")
    prepare(store, spec)
    process = torchrun(folder, request.config.rootpath, "--standalone", "--nproc-per-node", "2")
    while not checkpoint_hashes(store, RUN):
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    os.kill(rank_pid(process.pid, 1), signal.SIGKILL)
    process.communicate(timeout=300)
    reached = max(checkpoint_hashes(store, RUN))
    assert reached < 3000, "it was killed in the middle"
    shorter = spec_of(training=SHARDED | {"steps": reached + 200}, checkpoints={"every": 100})
    assert training.train(store, shorter) > 0
    prepare(alone, shorter)
    training.train(alone, shorter)
    assert checkpoint_hashes(store, RUN) == checkpoint_hashes(alone, RUN)


def test_every_family_and_optimizer_has_the_bits_of_one_process(tmp_path):
    multiprocessing.spawn(compare_shards_with_one_process, (str(tmp_path), 2, torch.device("cpu")), nprocs=2)


def test_the_norm_by_rows_is_the_norm():
    gradient = torch.randn(35, generator=torch.Generator().manual_seed(0))
    slots = [Slot("matrix", (6, 5), 0, 30), Slot("bias", (5,), 30, 35)]
    squares = row_squares(slots, gradient)
    assert len(squares) == 6 + 5
    assert norm_of_rows(squares) == pytest.approx(float(torch.linalg.vector_norm(gradient)), rel=1e-6)


@pytest.mark.parametrize("other", [{"micro_batches": 6, "batch": 12}, {"compile": True}, {"stacked": True}])
def test_what_cannot_be_sharded_is_refused(other):
    with pytest.raises(ValueError, match="sharded runs need micro_batches to be a power of two"):
        Training(**SHARDED | other)


def test_muon_needs_whole_matrices():
    optimizer = {"kind": "muon", "momentum": 0.9}
    with pytest.raises(MechError, match="sharded runs cannot use muon"):
        spec_of(training=SHARDED, optimizer=optimizer, ledger={}, influence={})
