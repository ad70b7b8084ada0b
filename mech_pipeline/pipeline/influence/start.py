"""Where a run's influence of some updates begins: the state before them, and the examples that they see."""

import numpy as np
from numpy.typing import NDArray

from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.training.update.optimizer import State


def seen_examples(run: OpenRun, begin: int, end: int) -> NDArray[np.int64]:
    """The distinct examples of updates begin … end − 1, as sorted places in the pool."""
    seen = np.zeros(len(run.tokens.pool), dtype=bool)
    for update in range(begin, end):
        seen[run.trainer.batch(update).numpy()] = True
    return np.flatnonzero(seen)


def state_before(run: OpenRun, update: int) -> State:
    """The state before an update: a checkpoint, or trained on from the one before."""
    state = run.state(max(step for step in run.checkpoints if step <= update))
    for made in run.trainer.updates(state, update):
        state = made.after
    return state
