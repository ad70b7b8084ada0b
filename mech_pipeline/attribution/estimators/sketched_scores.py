"""First-order scores from stored sketches: `gradient_dot.py` with ⟨∇M, P ∇ℓ_i⟩ estimated, and the error of every score.

Sketches are made once, of every example of the updates after a checkpoint, at that checkpoint. Any mechanism that is
thought of later then costs its own gradients at the checkpoints and one product with the sketches; no example is run again.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from mech_pipeline.attribution.estimators.gradient_dot import (
    Method,
    check_first_order,
    clip_of,
    lasting_rates,
    preconditioned,
)
from mech_pipeline.attribution.estimators.scores import TargetGradients, UpdateScores
from mech_pipeline.attribution.estimators.sketches import Sketcher, Sketches, query, sketch_examples
from mech_pipeline.errors import MechError
from mech_pipeline.progress import Report, ignore_progress
from mech_pipeline.training.loop import Trainer
from mech_pipeline.training.update.optimizer import State


@dataclass(frozen=True)
class SketchedScores:
    """Scores of one update with their standard errors, in the unit of each target."""

    update: UpdateScores
    errors: Float[Tensor, "target example"]


def sketch_window(
    trainer: Trainer,
    sketcher: Sketcher,
    begin: State,
    end_step: int,
    dtype: torch.dtype = torch.float16,
    report: Report = ignore_progress,
) -> Sketches:
    """Sketches at a checkpoint of the distinct examples of the updates from it to the next one.

    Args:
        end_step: step of the next checkpoint.
        report: called with the number of examples done.
    """
    examples = torch.unique(torch.cat([trainer.batch(step) for step in range(begin.step, end_step)]))
    trainer.flat.load(begin.theta)
    return sketch_examples(trainer.flat, sketcher, begin.step, examples, trainer.tokens(examples), dtype, report)


def sketched_scores(
    trainer: Trainer,
    sketcher: Sketcher,
    checkpoints: Sequence[int],
    state: Callable[[int], State],
    sketches: Callable[[int], Sketches],
    gradients: TargetGradients,
    method: Method = "gradient_dot_adam",
    clip_factors: Mapping[int, float] | None = None,
) -> Iterator[SketchedScores]:
    """Scores of every update from the first to the last checkpoint, in order.

    Args:
        sketches: reads the sketches made at a checkpoint.
        checkpoints, state, gradients, method, clip_factors: as in `gradient_dot_scores`.

    Raises:
        MechError: as `gradient_dot_scores`; an example of an update has no sketch.
    """
    check_first_order(trainer.optimizer, checkpoints)
    first, until = checkpoints[0], checkpoints[-1]
    rates = lasting_rates(trainer.optimizer, first, until)
    begin = state(first)
    for _, end_step in pairwise(checkpoints):
        end = state(end_step)
        stored = sketches(begin.step)
        directions = preconditioned(trainer.optimizer, gradients(begin), end, method)
        found = query(sketcher, stored, directions)
        place = {int(example): row for row, example in enumerate(stored.examples)}
        for step in range(begin.step, end.step):
            examples = trainer.batch(step)
            rows = _rows(place, examples.tolist(), step, begin.step)
            factor = rates[step - first] * clip_of(clip_factors, step) / len(examples)
            scores = UpdateScores(step, examples, -factor * found.values[:, rows])
            yield SketchedScores(scores, factor * found.errors[:, rows])
        begin = end


def _rows(place: Mapping[int, int], examples: Sequence[int], step: int, checkpoint: int) -> list[int]:
    missing = [example for example in examples if example not in place]
    if missing:
        raise MechError(
            f"{len(missing)} examples of update {step} have no sketch at checkpoint {checkpoint}",
            "make the sketches up to the next checkpoint that is named here",
        )
    return [place[example] for example in examples]
