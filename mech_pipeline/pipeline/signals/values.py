"""The table `signal_values`: every signal that a run asks for, at every planned checkpoint."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from mech_pipeline.pipeline.cells import Block, Cell, steps_of, write
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.pipeline.signals.wanted import CODE_VERSION, step_before
from mech_pipeline.signals.moment import SAMPLE, Moment
from mech_pipeline.signals.registry import signals
from mech_pipeline.spec.seeds import numpy_generator
from mech_pipeline.training.device import computing

_FLUSH_STEPS = 24


def measure(
    run: OpenRun, wanted: dict[Cell, str], pending: Sequence[Cell], on_steps: Callable[[list[int]], None]
) -> int:
    """Computes the pending cells, checkpoint by checkpoint; returns their number."""
    sample, late = sample_of(run), steps_of(pending)
    if current := sorted({*steps_of(wanted)} - {*late}):
        on_steps(current)
    with computing(run.spec.training):
        for begin in range(0, len(late), _FLUSH_STEPS):
            steps, blocks = late[begin : begin + _FLUSH_STEPS], list[Block]()
            for step in steps:
                at = moment(run, step, sample)
                blocks += [_block(cell, at, wanted[cell]) for cell in pending if cell.step == step]
            write(run.store, blocks, CODE_VERSION)
            on_steps(steps)
    return len(pending)


def _block(cell: Cell, at: Moment, made_from: str) -> Block:
    value = signals()[str(cell.item)].compute(at)
    return Block(cell, {"value": [value if math.isfinite(value) else None]}, made_from)


def moment(run: OpenRun, step: int, sample: Int[Tensor, "example token"]) -> Moment:
    """What signals may look at of a checkpoint."""
    flat, before = run.trainer.flat, step_before(run, step)
    earlier = None if before is None else run.weights(before).clone()
    theta, moments = run.weights(step).clone(), None
    if step > 0 and "moments" in run.brings:
        moments = run.state(step).v
    flat.load(theta)
    return Moment(step, flat, theta, earlier, moments, sample, run.components.index)


def sample_of(run: OpenRun) -> Int[Tensor, "example token"]:
    """A fixed sample of the run's training examples, the same at every checkpoint and for every seed."""
    count = len(run.tokens.pool)
    drawn = numpy_generator(run.spec.data.seed, "sample of signals").permutation(count)[:SAMPLE]
    return run.trainer.tokens(torch.from_numpy(np.sort(drawn)))
