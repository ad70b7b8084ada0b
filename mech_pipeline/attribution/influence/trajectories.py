"""Influence averaged over trainings that differ a little, instead of the derivative of one.

    Ī(i, s) = (1/K) Σ_k ∂M(θ_T of trajectory k) / ∂w_{i,s}

Trajectory k is the run trained again with the weights of a random set S_k at 0; S_0 is empty, the run itself. What is
averaged is exact in each of them (`influence.py`). Why: let removals be random with normal weights w around their mean. Then
Cov(M, w) = E[∇M] Cov(w) (Stein 1981), so of all linear predictions of M under that distribution the mean gradient is the best,
and the derivative at one point is only one draw of it. Removals are not normal, but sums over many of them nearly are.

An example that a trajectory trains without counts there like any other: its derivative is by its weight at 0, where it is
⟨∇ℓ_i, u⟩ / B as everywhere (`adjoint.py`): what a little of it would have done to that training.

Cost: K times a sweep and a training, one after another. Trajectories are not trained in a stack: the sweep replays training and
needs its bits, and training is a fifth of the cost. In memory: 2√T states of T updates.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise
from math import isqrt

import numpy as np
import torch
from numpy.typing import NDArray

from mech_pipeline.attribution.estimators.scores import TargetGradients
from mech_pipeline.attribution.influence.influence import Target, UpdateInfluence, influence_sweep
from mech_pipeline.attribution.influence.replay import Replayer
from mech_pipeline.attribution.retraining.removals import removal_size
from mech_pipeline.errors import MechError
from mech_pipeline.progress import Report, ignore_progress
from mech_pipeline.spec.seeds import numpy_generator
from mech_pipeline.training.loop import Trainer
from mech_pipeline.training.update.optimizer import State


def trajectory_sets(seen: NDArray[np.int64], share: float, count: int, seed: int) -> list[NDArray[np.int64]]:
    """What each trajectory leaves out: nothing, then random shares of the examples seen, sorted.

    A set depends on nothing but the examples seen, its share, its number and the seed; it has nothing to do with those that
    `removals.py` draws to measure predictions.

    Args:
        count: trajectories in all, K.

    Raises:
        ValueError: no trajectory is asked for, the share is not between 0 and 1, or one example is all there is.

    >>> [len(each) for each in trajectory_sets(np.arange(40), 0.1, 3, seed=0)]
    [0, 4, 4]
    """
    if count < 1:
        raise ValueError(f"a mean needs at least one trajectory, got {count}")
    if not 0 < share < 1:
        raise ValueError(f"the share that a trajectory leaves out is between 0 and 1, got {share}")
    if count > 1 and len(seen) < 2:
        raise ValueError(f"without a share of {len(seen)} examples nothing would be left to train on")
    size = removal_size(len(seen), share)
    drawn = (numpy_generator(seed, f"trajectory:{share!r}:{number}") for number in range(1, count))
    return [seen[:0], *(np.sort(each.choice(seen, size=size, replace=False)) for each in drawn)]


def trained_without(trainer: Trainer, removed: NDArray[np.int64]) -> Trainer:
    """The same training with weight 0 for some examples of the pool.

    Raises:
        ValueError: they are not distinct examples of the pool, or all of it.
    """
    size = len(trainer.pool)
    outside = removed[(removed < 0) | (removed >= size)]
    if len(outside):
        raise ValueError(f"example {outside[0]} cannot be left out of a pool of {size}")
    if len(np.unique(removed)) != len(removed) or len(removed) >= size:
        raise ValueError(
            f"{len(removed)} examples, not all distinct or no less than the pool's {size}, cannot be left out"
        )
    weights = torch.ones(size, dtype=trainer.flat.vector.dtype)
    weights[torch.from_numpy(removed)] = 0
    return replace(trainer, weights=weights if trainer.weights is None else weights * trainer.weights)


def trajectory_influence(
    trainer: Trainer,
    start: State,
    until: int,
    removed: NDArray[np.int64],
    gradients: TargetGradients,
    report: Report = ignore_progress,
) -> Iterator[UpdateInfluence]:
    """Trains without some examples from `start` to `until`, then sweeps back to `start`; see `influence_sweep`.

    Args:
        gradients: ∇M at a state, one row per target.
        report: called with the number of updates done; training and sweep count one each.

    Raises:
        ValueError: see `trained_without`.
        Diverged: training without those examples does.
    """
    again, updates = trained_without(trainer, removed), until - start.step
    kept = _kept_states(again, start, until, report)
    targets = [Target(str(row), until, gradient) for row, gradient in enumerate(gradients(kept[until]))]
    replayer = Replayer(again, kept.__getitem__, partial(_verify, kept), partial(_is_same, kept))
    windows = [partial(replayer.window, begin, end) for begin, end in pairwise(sorted(kept))]
    yield from influence_sweep(again, targets, windows[::-1], lambda done: report(updates + done))


def _kept_states(trainer: Trainer, start: State, until: int, report: Report) -> dict[int, State]:
    """States by step: both ends, and as many between them as a window has updates."""
    every = max(1, isqrt(until - start.step))
    kept = {start.step: start}
    for made in trainer.updates(start, until):
        if made.after.step == until or (made.after.step - start.step) % every == 0:
            kept[made.after.step] = made.after
        report(made.after.step - start.step)
    return kept


def _is_same(kept: dict[int, State], state: State) -> bool:
    expected = kept[state.step]
    return all(torch.equal(getattr(state, part), getattr(expected, part)) for part in ("theta", "m", "v"))


def _verify(kept: dict[int, State], state: State) -> None:
    if not _is_same(kept, state):
        raise MechError(
            f"a training of this process does not repeat itself at step {state.step}",
            "its kernels are not deterministic; report it, with the device and the versions of `mech --version`",
        )
