"""Counterfactual retrainings: one run trained again from the same state on the same batches, without some examples.

    L_t = (1/B) Σ_{i ∈ B_t} w_i ℓ_i,      w_i = 0 for removed examples, else the run's own weight

The divisor stays B. That is what influence differentiates: minus the influence of the removed examples, times their
weights, summed over the updates that saw them, predicts the change of M(θ_T) (docs/method.md §2). Nothing removed is a
retraining as well, the baseline of the others.

Cost: one training each, shared among the CPU cores. Small models are trained in stacks, which take a quarter of the time
at width 16 and two thirds at width 32. From about the demo's size on a stack gains nothing: matrix products fill a core
anyhow, and intermediate results leave the cache (docs/log.md). Then each core trains one after another.
Source: retraining without random subsets as the ground truth of attribution, Ilyas et al. 2022 (datamodels); Park et
al. 2023 (TRAK).
"""

import math
import os
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mech_pipeline.attribution.retraining.stack import Counterfactuals, retrain_alone, retrain_stack
from mech_pipeline.progress import Report, ignore_progress
from mech_pipeline.training.loop import Trainer
from mech_pipeline.training.model import example_losses
from mech_pipeline.training.update.optimizer import State, Vector

CACHE_BYTES = 48 << 20
"""Of one stack on a CPU, beyond which it gets slower (docs/log.md)."""
FEWEST_ROWS = 6
"""Below, a stack on a CPU is no faster than one after another: 15 rows take 0.7 of the time, 3 rows 1.07 (docs/log.md)."""
GPU_SHARE = 0.25
"""Of a GPU's free memory, for one stack: the estimate knows nothing of temporary results."""
MOST_ROWS = 64
_LOOK_SECONDS = 1.0


def retrain(
    trainer: Trainer,
    start: State,
    until: int,
    removed: Sequence[NDArray[np.int64]],
    *,
    rows: int | None = None,
    workers: int | None = None,
    report: Report = ignore_progress,
) -> Generator[dict[int, Vector | None], None, None]:
    """Trains again from `start`, once for every set of removed examples.

    Yields what has been finished, stack by stack in any order: θ at `until` by position in `removed`; none if that
    retraining diverged. It equals training with weights 0: to rounding, or bit for bit where nothing is stacked.

    Args:
        start: the state from which on removed examples have no weight.
        removed: pool indices of each set; an empty set is the baseline.
        rows: retrainings in one stack; by default `rows_of_a_stack`, which may say that none is worth it.
        workers: threads; by default what the CPU cores allow, on a GPU one.
        report: called about once a second with the number of updates done, over all retrainings.
    """
    if not removed:
        return
    rows = rows_of_a_stack(trainer) if rows is None else rows
    train = retrain_stack if rows else retrain_alone
    workers = min(len(removed), workers or _workers(trainer))
    stacks = min(len(removed), workers * math.ceil(len(removed) / (max(rows, 1) * workers)))
    parts = [part.tolist() for part in np.array_split(np.arange(len(removed)), stacks)]
    common = Counterfactuals(trainer, start, until)
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(trainer.training.threads,)) as pool:
        futures = {pool.submit(train, common, [removed[index] for index in part]): part for part in parts}
        try:
            yield from _finished(futures, common, report)
        finally:
            common.stopped.set()
            pool.shutdown(cancel_futures=True)


def _workers(trainer: Trainer) -> int:
    return 1 if trainer.device.type == "cuda" else max(1, (os.cpu_count() or 1) // trainer.training.threads)


def _finished(
    futures: dict[Future[list[Vector | None]], list[int]], common: Counterfactuals, report: Report
) -> Iterator[dict[int, Vector | None]]:
    waiting = set(futures)
    while waiting:
        finished, waiting = wait(waiting, timeout=_LOOK_SECONDS, return_when=FIRST_COMPLETED)
        report(common.done)
        for future in finished:
            yield dict(zip(futures[future], future.result(), strict=True))


def rows_of_a_stack(trainer: Trainer) -> int:
    """Retrainings whose intermediate results fit the cache of a core, or a quarter of a GPU; 0: better without stacks."""
    if trainer.training.precision != "fp32":
        return 0  # autocast is not mapped over stacks
    examples = math.ceil(trainer.training.batch / trainer.training.micro_batches)
    state_bytes = 6 * trainer.flat.vector.nbytes  # θ, m, v, the gradient, and what an update makes on its way
    budget, fewest = CACHE_BYTES, FEWEST_ROWS
    if trainer.device.type == "cuda":
        budget, fewest = int(GPU_SHARE * torch.cuda.mem_get_info(trainer.device)[0]), 2
    rows = max(1, min(MOST_ROWS, budget // (examples * _kept_bytes(trainer) + state_bytes)))
    return rows if rows >= fewest or trainer.training.stacked else 0


def _kept_bytes(trainer: Trainer) -> int:
    """Memory that one example's forward keeps for its backward, parameters aside: measured."""
    own = trainer.flat.vector.untyped_storage().data_ptr()
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() != own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        losses = example_losses(trainer.flat.model, trainer.tokens(torch.zeros(1, dtype=torch.int64)))
    assert losses.requires_grad, "the forward was recorded, so its tensors were all alive at once"
    return sum(kept.values())
