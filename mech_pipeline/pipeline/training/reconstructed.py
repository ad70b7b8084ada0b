"""Moments that a suite does not publish, from its batches: they begin at zero, so a replay from update 0 on passes through them.

From one revision to the next the replay begins at the published weights, and at the moments that it came with itself:

    residual of a revision = ‖θ replayed − θ published‖ / ‖θ published − θ of the revision before‖

About rounding where batches, optimizer and kernels are those of the training, about 1 where they are others; what precision the
weights were published in shows too. Moments are worth no more than these residuals (table `checkpoints`). Costs one training.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

from mech_pipeline.attribution.replay_check import ReplayCheck
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.training.update.optimizer import State, Vector

Reconstructed = tuple[State, float]
"""Published weights with the moments of the replay, and the residual; 0 at update 0, where moments are known."""


def reconstructed(run: OpenRun, first: int, published: Callable[[int], Vector]) -> Iterator[Reconstructed]:
    """The states of all revisions from one on, by rising step; the one before it is in the store.

    Args:
        first: the first revision that is asked for; the first of all is 0.
        published: reads the weights of a revision.
    """
    assert run.spec.imported is not None, "asked for only of a run from outside"
    steps = run.spec.imported.found_steps
    state = run.state(max(step for step in steps if step < first)) if first else None
    for step in (each for each in steps if each >= first):
        theta = published(step)
        if state is None:
            zeros = torch.zeros_like(theta)
            state, residual = State(step, theta, zeros, zeros.clone()), 0.0
        else:
            replayed = _replayed(run, state, step)
            after = replace(replayed, theta=theta)
            residual = ReplayCheck(run.spec.optimizer, state, after).distance(replayed)
            state = after
        yield state, residual


def _replayed(run: OpenRun, state: State, until: int) -> State:
    for made in run.trainer.updates(state, until):
        state = made.after
    return state
