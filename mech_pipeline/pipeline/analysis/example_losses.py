"""Loss of every example at every update: what the model knew of it when it saw it.

    loss = ℓ_i(θ_s), nats per token, of the examples i of update s, before the update

Windows between checkpoints are replayed and verified bit for bit; each update costs a forward beside its replay. Weights of
examples are no part of it: the mean over a batch is the loss of `training_metrics` where all of them are 1.
Source of the idea: Swayamdipta et al. 2020, "Dataset Cartography", section 2; a data map is a query (docs/sql.md).
"""

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import torch

from mech_pipeline.pipeline.analysis.late import late_steps
from mech_pipeline.pipeline.analysis.wanted import EXAMPLE_LOSSES, EXAMPLE_LOSSES_VERSION, wanted_example_losses
from mech_pipeline.pipeline.cells import Block, Cell, pending_cells, write
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.progress import Report, ignore_progress
from mech_pipeline.training.device import computing
from mech_pipeline.training.loop import Trainer, Update


def compute_example_losses(
    run: OpenRun,
    steps: Iterable[int],
    on_steps: Callable[[list[int]], None] = lambda done: None,
    report: Report = ignore_progress,
) -> int:
    """Computes what is pending of the windows that end at these steps; returns the number of cells.

    Raises:
        MechError: a replay is not the training.
    """
    cells = wanted_example_losses(run, steps)
    begins = {end: begin for begin, end in run.windows(max(run.checkpoints))}
    late = pending_cells(run.store, cells)
    with computing(run.spec.training):
        for done, step in enumerate(late_steps(cells, late, on_steps), start=1):
            cell = Cell(EXAMPLE_LOSSES, run.spec.run, step)
            updates = run.replay(begins[step], step)
            write(run.store, [Block(cell, _columns(run, updates), cells[cell])], EXAMPLE_LOSSES_VERSION)
            report(done)
    return len(late)


def _columns(run: OpenRun, updates: list[Update]) -> dict[str, object]:
    examples = np.concatenate([made.examples.numpy() for made in updates])
    sizes = [len(made.examples) for made in updates]
    return {
        "update_step": np.repeat([made.before.step for made in updates], sizes).tolist(),
        "position": [place for size in sizes for place in range(size)],
        "example_id": run.tokens.example_ids[examples].tolist(),
        "loss_nats": torch.cat([losses_before(run.trainer, made) for made in updates]).tolist(),
    }


def losses_before(trainer: Trainer, made: Update) -> torch.Tensor:
    """Loss of each example of an update before it, whatever its weight, [example], on the CPU."""
    trainer = replace(trainer, weights=None, example_weights=None)
    trainer.flat.load(made.before.theta)
    with torch.no_grad():
        parts = [trainer.losses(part, made.before.step) for part in trainer.micro_batches(made.examples)]
    return torch.cat(parts).float().cpu()
