"""Retraining partitions: a run trained again without some examples, many times, up to the last target of its influence.

A cell is one removal. Finished stacks are stored at once, so a killed stage goes on with what is missing, and asking for
more removals adds to those that are there. Every retrained model is evaluated on all mechanisms of the influence.
"""

from contextlib import closing

import numpy as np
from numpy.typing import NDArray

from mech_pipeline.attribution.influence.horizon import first_update
from mech_pipeline.attribution.retraining.removals import (
    BASELINE,
    Removal,
    asked_removals,
    matched_removal,
    random_removal,
    top_removal,
)
from mech_pipeline.attribution.retraining.retraining import retrain
from mech_pipeline.errors import MechError
from mech_pipeline.pipeline.influence.rows import stored_totals
from mech_pipeline.pipeline.influence.start import seen_examples, state_before
from mech_pipeline.pipeline.influence.wanted import pending as pending_influence
from mech_pipeline.pipeline.retraining.rows import Retrained, stored_baseline, write_retrained
from mech_pipeline.pipeline.retraining.wanted import CODE_VERSION, pending, removal_cell, wanted
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.progress import Emit, Progress
from mech_pipeline.training.device import computing
from mech_pipeline.training.update.optimizer import Vector


def compute_retrainings(run: OpenRun, step: int, emit: Emit = lambda line: None) -> int:
    """Retrains what is pending up to a step; returns the number of retrainings.

    Raises:
        MechError: there is no influence at the step to compare with, nothing was seen before it, or the baseline diverged.
    """
    if step == 0:
        raise MechError(
            f"retraining up to step 0 of run {run.spec.run}: no example has been seen yet", "name a later step"
        )
    if pending_influence(run, [step]):
        raise MechError(
            f"retrainings at step {step} of run {run.spec.run} are compared with its influence, which is not current",
            "materialize `influence` there first, or `mech run` the experiment",
        )
    todo = {cell.item for cell in pending(run, step)}
    removals = [removal for removal in asked_removals(run.spec.influence) if removal.name in todo]
    if removals:
        with computing(run.spec.training):
            _retrain(run, step, removals, emit)
    return len(removals)


def _retrain(run: OpenRun, step: int, removals: list[Removal], emit: Emit) -> None:
    begin, fingerprints = first_update(step, run.spec.influence.horizon), wanted(run, step)
    seen = seen_examples(run, begin, step)
    removed = [_examples(run, step, removal, seen) for removal in removals]
    progress = Progress(
        emit, f"retraining {run.spec.run} to {step}, {len(removals)} times", (step - begin) * len(removals), "updates"
    )
    baseline, waiting = stored_baseline(run, step, fingerprints[removal_cell(run, step, BASELINE)]), list[Retrained]()
    diverged = 0
    with closing(retrain(run.trainer, state_before(run, begin), step, removed, report=progress)) as working:
        for finished in working:
            for index, theta in finished.items():
                removal, values = removals[index], _values(run, theta)
                diverged += values is None
                if removal.name == BASELINE:
                    baseline = _baseline(run, step, values, emit)
                waiting.append(
                    Retrained(removal, removed[index], values, fingerprints[removal_cell(run, step, removal.name)])
                )
            if baseline is not None:  # changes are relative to it; it is in one of the first stacks
                write_retrained(run, step, waiting, baseline, CODE_VERSION)
                waiting = []
    assert not waiting, "the baseline is stored or among what is retrained"
    if diverged:
        emit(f"{diverged} of {len(removals)} retrainings of {run.spec.run} diverged; they have no value")


def _examples(run: OpenRun, step: int, removal: Removal, seen: NDArray[np.int64]) -> NDArray[np.int64]:
    asked = run.spec.influence.retraining
    assert asked is not None, "somebody asked for removals"
    if removal.number is not None:
        return random_removal(seen, removal.fraction, removal.number, asked.seed)
    if removal.target is not None:
        top = top_removal(seen, _total_influence(run, step, *removal.target), removal.fraction)
        kind = run.tokens.stored.group[np.arange(len(run.tokens.pool))]
        return matched_removal(seen, top, kind, removal.name, asked.seed) if removal.matched else top
    return seen[:0]


def _total_influence(run: OpenRun, step: int, mechanism: str, method: str) -> NDArray[np.float64]:
    """Influence of every example of the pool times its weight, over all updates."""
    totals = stored_totals(run, step, mechanism, method)
    return np.array([totals.get(str(name), 0.0) for name in run.tokens.example_ids])


def _values(run: OpenRun, theta: Vector | None) -> dict[str, float] | None:
    """All mechanisms at the end of a retraining; none if it diverged."""
    if theta is None:
        return None
    values = run.values_at(theta, run.spec.influence.mechanisms)
    return values if np.isfinite(list(values.values())).all() else None


def _baseline(run: OpenRun, step: int, values: dict[str, float] | None, emit: Emit) -> dict[str, float]:
    if values is None:
        raise MechError(
            f"run {run.spec.run}, trained again as it was, diverged before step {step}",
            "its training is not stable enough to ask what single examples do; lower optimizer.learning_rate",
        )
    own = _values(run, run.state(step).theta)
    for name, value in values.items():
        if own is not None:  # stacks add in another order, which training may amplify: the noise of all changes
            emit(f"retrained without removal, {name} is {value:.6g}; the run itself had {own[name]:.6g}")
    return values
