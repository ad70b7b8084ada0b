"""Retrainings without some examples: in stacks, and one after another with an ordinary trainer."""

import numpy as np
import torch

from mech_pipeline.attribution.retraining.retraining import retrain
from mech_pipeline.training.update.optimizer import State
from tests.support.models import with_weights

UNTIL = 8
NOTHING = np.array([], dtype=np.int64)
REMOVED = [NOTHING, np.array([3, 5, 11]), np.array([0]), np.arange(0, 24, 2), np.array([7, 8])]


def initial(trainer):
    """The state of a trainer that has not trained yet."""
    return State.initial(trainer.flat.vector)


def plain(trainer, removed, start, until=UNTIL):
    """One after another, with an ordinary trainer."""
    ends = []
    for examples in removed:
        weights = torch.ones(len(trainer.pool), dtype=trainer.flat.vector.dtype)
        weights[examples] = 0
        *_, last = with_weights(trainer, weights).updates(start, until)
        ends.append(last.after.theta)
    return ends


def stacked(trainer, removed, start, until=UNTIL, **how):
    found = {}
    for finished in retrain(trainer, start, until, removed, **how):
        found |= finished
    return [found[position] for position in range(len(removed))]


def assert_equal(some, others):
    # 8 updates amplify the rounding of a sum, 1e-16, by some hundreds; Adam divides by roots near 1e-2.
    for one, other in zip(some, others, strict=True):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-10)
