"""What a method of influence beside the exact sweep gives: scores, and what is known of how good they are."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from mech_pipeline.attribution.estimators.scores import TargetGradients, UpdateScores
from mech_pipeline.mechanisms.gradient import mechanism_gradient
from mech_pipeline.pipeline.influence.rows import Metric
from mech_pipeline.pipeline.influence.score_rows import ExampleScores
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.training.update.optimizer import State


@dataclass(frozen=True)
class Standing:
    """Which scores may be trusted.

    Attributes:
        horizon: the first update whose scores may be, if any may.
        trusted: whether those from the horizon on may be; none: it was not measured.
        measured_since: the first update that `trusted` speaks of.
    """

    horizon: int
    trusted: bool | None
    measured_since: int = 0


@dataclass(frozen=True)
class Estimated:
    """Of all updates on one mechanism.

    Attributes:
        metrics: what the method knows of itself.
        standing: none: agreement with the exact influence decides.
        standard_errors: of weight times influence of every example of the pool; NaN where it is not known.
    """

    scores: ExampleScores
    metrics: Sequence[Metric]
    standing: Standing | None = None
    standard_errors: Float[np.ndarray, " pool"] | None = None


def estimated(updates: Sequence[UpdateScores], metrics: Sequence[Sequence[Metric]]) -> list[Estimated]:
    """One of every mechanism, from scores with a row for each."""
    steps, examples = [each.step for each in updates], [each.examples.cpu().numpy() for each in updates]

    def of(index: int) -> ExampleScores:
        return ExampleScores.gathered(steps, examples, [each.scores[index].double().cpu().numpy() for each in updates])

    return [Estimated(of(index), known) for index, known in enumerate(metrics)]


def target_gradients(run: OpenRun, mechanisms: Sequence[str]) -> TargetGradients:
    """∇ of every mechanism at a state, on the run's probe."""

    def at(state: State) -> torch.Tensor:
        run.trainer.flat.load(state.theta)
        return torch.stack([mechanism_gradient(name, run.trainer.flat, run.tokens.probe) for name in mechanisms])

    return at
