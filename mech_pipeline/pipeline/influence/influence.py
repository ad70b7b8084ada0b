"""Influence partitions: what would happen to mechanisms at target steps, by one or several estimators.

The exact adjoint sweeps once for all targets of a run. Cheap estimators write to the same tables under their own `method`.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from mech_pipeline.attribution.influence.horizon import first_update
from mech_pipeline.attribution.influence.reliability import adjoint_growth, metasmoothness
from mech_pipeline.errors import MechError
from mech_pipeline.pipeline.cells import steps_of
from mech_pipeline.pipeline.influence import sweep_state
from mech_pipeline.pipeline.influence.estimates import check_environments, compute_estimates
from mech_pipeline.pipeline.influence.rows import (
    WHOLE,
    WHOLE_SWEEP,
    Metric,
    Scored,
    gridded,
    write_scored,
)
from mech_pipeline.pipeline.influence.score_rows import ExampleScores
from mech_pipeline.pipeline.influence.sweep import SweptTarget, sweep_targets
from mech_pipeline.pipeline.influence.wanted import CODE_VERSION, pending, wanted
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.progress import Emit, Progress
from mech_pipeline.statistics.verdict import METASMOOTH_LIMIT
from mech_pipeline.store.tables.all import ADJOINT
from mech_pipeline.training.device import computing


def compute_influence(run: OpenRun, steps: Iterable[int], emit: Emit = lambda line: None) -> int:
    """Computes what is pending at target steps; returns the number of cells.

    Raises:
        MechError: a target is step 0, which no example has influenced, or has no checkpoint.
    """
    steps = sorted(set(steps))
    if 0 in steps:
        raise MechError(f"influence at step 0 of run {run.spec.run}: no example has been seen yet", "name a later step")
    todo = pending(run, steps)
    exact = [cell for cell in todo if cell.method == ADJOINT]
    fingerprints = wanted(run, steps)
    check_environments(todo)
    with computing(run.spec.training):
        if exact:
            smooth: dict[int, _Smoothness | None] = {}
            for cell, swept in zip(exact, sweep_targets(run, exact, emit), strict=True):
                step = swept.target.step
                if step not in smooth:  # it belongs to training, whatever the mechanism
                    smooth[step] = _metasmoothness(run, step, emit)
                write_scored(run, _scored(run, swept, smooth[step]), fingerprints[cell], CODE_VERSION)
            sweep_state.forget(run.store, run.spec.run, max(steps_of(exact)))
        others = [cell for cell in todo if cell not in exact]
        if others:
            compute_estimates(run, others, fingerprints, emit)
    return len(todo)


@dataclass(frozen=True)
class _Smoothness:
    """Metasmoothness of training from a step to a target.

    Attributes:
        mechanisms: M at the target as it was trained, and where weights were perturbed by h and by 2 h.
    """

    value: float
    since: int
    mechanisms: dict[str, tuple[float, float, float]]


def _scored(run: OpenRun, swept: SweptTarget, smooth: _Smoothness | None) -> Scored:
    found, target = swept.found, swept.target
    finite = [i for i, part in enumerate(found.parts) if np.isfinite(part.astype(np.float32)).all()]
    if not finite:
        raise MechError(
            f"influence on {target.name} at step {target.step} of run {run.spec.run} is not finite anywhere",
            "the adjoint overflowed at once; train with the attributable optimizer preset",
        )

    def gathered(pieces: list[np.ndarray]) -> ExampleScores:
        return ExampleScores.gathered(
            [found.steps[i] for i in finite], [found.examples[i] for i in finite], [pieces[i] for i in finite]
        )

    scores = gathered(found.parts)
    metrics, horizon = _metrics(run, swept, finite, scores)
    trusted = None
    if smooth is not None:  # without it nothing is said about reliability, neither yes nor no
        trusted = smooth.value >= METASMOOTH_LIMIT
        begin = first_update(target.step, target.horizon)
        metrics += [
            ("metasmoothness", WHOLE_SWEEP, smooth.value),
            ("metasmoothness_since", WHOLE_SWEEP, float(smooth.since)),
        ]
        ends = zip(("value_at_0", "value_at_h", "value_at_2h"), smooth.mechanisms[target.name], strict=True)
        metrics += [(name, WHOLE_SWEEP, value) for name, value in ends if np.isfinite(value)]
        within = trusted and horizon <= begin
        if not within or smooth.since <= begin:
            metrics.append(("reliable", WHOLE_SWEEP, float(within)))
    return Scored(
        step=target.step,
        mechanism=target.name,
        method=ADJOINT,
        scores=scores,
        components=run.components.names if run.spec.influence.components else WHOLE,
        metrics=metrics,
        horizon=horizon,
        trusted=trusted,
        measured_since=smooth.since if smooth is not None else 0,
        tokens=gridded(gathered(found.tokens)) if found.tokens else None,
    )


def _metrics(run: OpenRun, swept: SweptTarget, finite: list[int], scores: ExampleScores) -> tuple[list[Metric], int]:
    """What is known of a sweep, and the update from which on it may be trusted."""
    found, step = swept.found, swept.target.step
    growth = adjoint_growth(list(zip(found.steps, found.norms, strict=True)), swept.norm)
    horizon = max(growth.horizon_step, min(found.steps[i] for i in finite))
    whole = scores.values.sum(axis=1)
    begins = {begin for begin, _ in run.windows(step)}
    metrics: list[Metric] = [
        ("adjoint_norm", found.steps[i], found.norms[i])
        for i in finite
        if found.steps[i] in begins and np.isfinite(found.norms[i])
    ]
    metrics += [
        ("adjoint_norm", step, swept.norm),
        ("adjoint_growth", WHOLE_SWEEP, min(growth.growth, float(np.finfo(np.float64).max))),
        ("horizon_step", WHOLE_SWEEP, float(horizon)),
        ("influence_sum", WHOLE_SWEEP, float(whole.sum() / max(np.abs(whole).sum(), np.finfo(np.float64).tiny))),
    ]
    return metrics, horizon


def _metasmoothness(run: OpenRun, step: int, emit: Emit) -> _Smoothness | None:
    chosen = run.spec.influence
    if chosen.metasmoothness_steps == 0:
        return None
    earliest = max(first_update(step, chosen.horizon), first_update(step, chosen.metasmoothness_steps))
    start = max(s for s in run.planned if s <= earliest and s in run.checkpoints)
    progress = Progress(
        emit, f"metasmoothness {run.spec.run}, updates {start}–{step}, twice", 2 * (step - start), "updates"
    )
    reference = run.state(step).theta
    found = metasmoothness(run.trainer, run.state(start), step, chosen.metasmoothness_size, reference, progress)
    ends = [run.values_at(theta, chosen.mechanisms) for theta in (reference, found.at_h, found.at_2h)]
    mechanisms = {name: (ends[0][name], ends[1][name], ends[2][name]) for name in chosen.mechanisms}
    return _Smoothness(found.value, start, mechanisms)
