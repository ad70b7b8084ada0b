"""One process of a training run that several processes share; start it with torchrun.

    torchrun --nproc-per-node 4 -m mech_pipeline.train RUN                                        one machine
    torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint HOST:29500 \\
        -m mech_pipeline.train RUN                                                                on each of two

The asset `training_run` does the first by itself. The run must be known to the store with its tokens made (assets
`run_spec` and `tokens`), and every process must reach the store. Rank 0 keeps the checkpoints and tells Dagster of
them through Pipes, if Dagster started it. What a killed process leaves is continued by the next start, on any number
of processes, bit for bit.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from mech_pipeline.errors import MechError
from mech_pipeline.parent import end_with_parent
from mech_pipeline.pipeline.run_row import stored_spec
from mech_pipeline.pipeline.training.training import train
from mech_pipeline.progress import Progressed, Said
from mech_pipeline.project import find_store
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.store.store import Store
from mech_pipeline.training.allocator import keep_freed_memory
from mech_pipeline.training.device import training_device
from mech_pipeline.training.many.ranks import Ranks

Send = Callable[[dict[str, Any]], None]


def main() -> None:
    """Entry point of every rank; errors that people can act on are one line on stderr."""
    parser = argparse.ArgumentParser(prog="torchrun … -m mech_pipeline.train", description=__doc__.splitlines()[0])
    parser.add_argument("run", help="run id, for example induction.baseline.s0")
    parser.add_argument("--store", default=None, help="folder or s3://bucket/prefix; default MECH_STORE, else ./store")
    parser.add_argument("--home", default="", help="folder that names of files in the run's spec begin at; default .")
    chosen = parser.parse_args()
    if "TORCHELASTIC_RUN_ID" in os.environ:
        end_with_parent()  # a killed torchrun leaves no rank behind
    try:
        _train(chosen.run, chosen.store or find_store(), Path(chosen.home).absolute())
    except MechError as error:
        print(f"mech: {error}", file=sys.stderr)
        sys.exit(1)


def _train(run: str, root: str, home: Path) -> None:
    keep_freed_memory()
    with _messages() as send:
        try:
            store = Store(root, dagster_run=os.environ.get("MECH_DAGSTER_RUN", ""))
            spec = stored_spec(store, run).at(home)
            with _joined(spec) as ranks:
                train(
                    store,
                    spec,
                    lambda saved: send({"saved": asdict(saved)}),
                    lambda said: send(_message(said)),
                    ranks,
                )
        except MechError as error:
            send({"problem": error.problem, "next_step": error.next_step})
            raise


def _message(said: Said) -> dict[str, Any]:
    """Progress with its fields, or a sentence."""
    return {"progress": asdict(said)} if isinstance(said, Progressed) else {"line": said}


@contextmanager
def _joined(spec: RunSpec) -> Iterator[Ranks]:
    """The process group, left again at the end.

    Raises:
        MechError: torchrun started another number of processes than the spec can share.
    """
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if spec.training.micro_batches % started or started & (started - 1):
        raise MechError(
            f"{started} processes cannot share the {spec.training.micro_batches} micro-batches of run {spec.run}",
            "start a power of two that divides training.micro_batches",
        )
    if started == 1:
        yield Ranks()
        return
    device = training_device(spec.training)
    if device.type == "cuda":
        torch.cuda.set_device(device)  # what names no device, FSDP among it, takes the current one
        dist.init_process_group("nccl", device_id=device)
    else:
        dist.init_process_group("gloo")
    try:
        yield Ranks.joined(device)
    finally:
        dist.destroy_process_group()


@contextmanager
def _messages() -> Iterator[Send]:
    """Where rank 0 tells what happens: Dagster, if it listens, else the terminal. Other ranks are silent."""
    if os.environ.get("RANK", "0") != "0":
        yield lambda message: None
    elif "DAGSTER_PIPES_CONTEXT" in os.environ:
        from dagster_pipes import open_dagster_pipes

        with open_dagster_pipes() as pipes:
            yield pipes.report_custom_message
    else:
        yield _print


def _print(message: dict[str, Any]) -> None:
    if "line" in message:
        print(message["line"], flush=True)
    elif "progress" in message:
        print(Progressed(**message["progress"]), flush=True)


if __name__ == "__main__":
    main()
