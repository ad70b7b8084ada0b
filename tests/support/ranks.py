"""Several processes that train one run: starting them, finding one of them, and comparing them with one process."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from mech_pipeline.spec.training import Training
from mech_pipeline.training.many.ranks import Ranks
from mech_pipeline.training.many.sharded import ShardedTrainer
from mech_pipeline.training.update.optimizer import State
from tests.support.models import ARCHITECTURES, OPTIMIZERS, trainer_of

RUN = "tiny.baseline.s0"
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
UPDATES = 4
linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and every 127.x address")

CASES = [(architecture, OPTIMIZERS["adamw, clip and decay"], "fp32") for architecture in ARCHITECTURES]
CASES += [("gpt2", optimizer, "fp32") for optimizer in OPTIMIZERS.values()]
CASES += [("mlp and layer norm", OPTIMIZERS["adamw, clip and decay"], "bf16")]


def torchrun(folder, root, *options):
    path = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [*TORCHRUN, *options, "-m", "mech_pipeline.train", RUN, "--store", str(folder / "shared")]
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def rank_pid(parent, rank):
    """The process of one rank among all descendants of torchrun."""
    pending = [parent]
    while pending:
        pid = pending.pop()
        if f"RANK={rank}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            return pid
        for task in Path(f"/proc/{pid}/task").iterdir():
            pending += [int(child) for child in (task / "children").read_text().split()]
    raise AssertionError("no such rank")


def compare_shards_with_one_process(rank, folder, processes, device):
    """Runs in each of the processes; fails where a state, a loss or a norm has other bits than one process gives."""
    torch.set_num_threads(1)
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=f"file://{folder}/rendezvous", rank=rank, world_size=processes)
    for architecture, optimizer, precision in CASES:
        alone = _sharded_trainer(architecture, optimizer, precision, device)
        fields = {field.name: getattr(alone, field.name) for field in dataclasses.fields(alone)}
        whole = _sharded_trainer(architecture, optimizer, precision, torch.device("cpu")).flat
        shared = ShardedTrainer(**fields | {"flat": whole, "ranks": Ranks.joined(device)})
        initial = State.initial(alone.flat.vector)
        assert len(shared.shards.part(initial.theta)) <= 0.6 * len(initial.theta) or processes == 1
        expected = list(alone.updates(initial, UPDATES))
        found = list(shared.updates(initial, UPDATES, whole=range(2, UPDATES + 1)))
        for one, other in zip(expected, found, strict=True):
            what = f"{architecture}, {optimizer.kind}, update {one.before.step}"
            assert (one.loss, one.gradient_norm, one.clip) == (other.loss, other.gradient_norm, other.clip), what
            if rank == 0 and one.after.step >= 2:
                for name in ("theta", "m", "v"):
                    assert torch.equal(getattr(one.after, name).cpu(), getattr(other.after, name)), f"{what}: {name}"
    dist.destroy_process_group()


def _sharded_trainer(architecture, optimizer, precision, device):
    trainer = trainer_of(ARCHITECTURES[architecture], optimizer, dtype=torch.float32, device=device)
    changed = {"micro_batches": 4, "sharded": True, "precision": precision}
    return dataclasses.replace(trainer, training=Training(**trainer.training.model_dump() | changed))
