"""Estimators of influence beside the exact one, further methods of the same table, with what is known of how good they are.

Beside every score stands the rank correlation with the exact adjoint where that is there (`agreement`), and what the
method knows of itself (`residual` of Gauss–Newton, `standard_error` of sketches at every update). An estimator counts as
reliable where the lower end of the agreement's interval is at least AGREEMENT_LIMIT; without an adjoint nothing is said.
"""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from mech_pipeline.attribution.estimators.agreement import agreement
from mech_pipeline.attribution.estimators.ekfac import ekfac_scores
from mech_pipeline.attribution.estimators.ekfac_environment import interpreter_of
from mech_pipeline.attribution.estimators.gauss_newton import Settings, gauss_newton_scores
from mech_pipeline.attribution.estimators.gradient_dot import gradient_dot_scores
from mech_pipeline.attribution.estimators.scores import UpdateScores
from mech_pipeline.attribution.estimators.sketched_scores import sketched_scores
from mech_pipeline.attribution.influence.horizon import first_update
from mech_pipeline.pipeline.cells import Cell
from mech_pipeline.pipeline.influence.estimated import Estimated, Standing, estimated, target_gradients
from mech_pipeline.pipeline.influence.mean import mean_influence
from mech_pipeline.pipeline.influence.rows import (
    WHOLE,
    WHOLE_SWEEP,
    Metric,
    Scored,
    stored_totals,
    weights_of,
    write_scored,
)
from mech_pipeline.pipeline.influence.score_rows import ExampleScores
from mech_pipeline.pipeline.influence.sketches import make_sketches, read_sketches, sketcher_of
from mech_pipeline.pipeline.influence.wanted import ESTIMATES_VERSION, checkpoints_before
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.progress import Emit, Progress
from mech_pipeline.store.tables.all import ADJOINT

AGREEMENT_LIMIT = 0.5
"""A convention: below, an estimator's order of examples has little to do with the exact one."""

_Estimator = Callable[[OpenRun, int, Sequence[str], Emit], list[Estimated]]
"""Scores on several mechanisms at a step."""


def check_environments(cells: Sequence[Cell]) -> None:
    """Looks for what estimators need outside of this environment, before hours are spent on others.

    Raises:
        MechError: it is not there.
    """
    if any(cell.method == "ekfac" for cell in cells):
        interpreter_of(None)


def compute_estimates(run: OpenRun, cells: Sequence[Cell], fingerprints: dict[Cell, str], emit: Emit) -> None:
    """Computes cells of cheap methods, all mechanisms of a step and method in one pass."""
    groups: dict[tuple[int, str], dict[str, Cell]] = {}
    for cell in cells:
        assert cell.step is not None, "influence is at a step"
        groups.setdefault((cell.step, str(cell.method)), {})[str(cell.item)] = cell
    for (step, method), mechanisms in sorted(groups.items(), key=lambda group: group[0]):
        found = _ESTIMATORS[method](run, step, list(mechanisms), emit)
        for each, (mechanism, cell) in zip(found, mechanisms.items(), strict=True):
            compared, agrees = _agreement(run, step, mechanism, each.scores)
            standing = each.standing or Standing(0, agrees)
            scored = Scored(
                step=step,
                mechanism=mechanism,
                method=method,
                scores=each.scores,
                components=WHOLE,
                metrics=[*compared, *each.metrics],
                horizon=standing.horizon,
                trusted=standing.trusted,
                measured_since=standing.measured_since,
                standard_errors=each.standard_errors,
            )
            write_scored(run, scored, fingerprints[cell], ESTIMATES_VERSION)


def _first_order(method: str) -> _Estimator:
    def estimate(run: OpenRun, step: int, mechanisms: Sequence[str], emit: Emit) -> list[Estimated]:
        checkpoints = checkpoints_before(run, step)
        progress = Progress(emit, f"{method} {run.spec.run} at {step}", step - checkpoints[0], "updates")
        updates = gradient_dot_scores(
            run.trainer,
            checkpoints,
            run.state,
            target_gradients(run, mechanisms),
            method,  # type: ignore[arg-type]  # one of the two names it is registered under
            clip_factors=_clip_factors(run, step),
            report=progress,
        )
        return estimated(list(_within(run, step, updates)), [[] for _ in mechanisms])

    return estimate


def _within(run: OpenRun, step: int, updates: Iterator[UpdateScores] | list[UpdateScores]) -> Iterator[UpdateScores]:
    first = first_update(step, run.spec.influence.horizon)
    return (update for update in updates if update.step >= first)


def _clip_factors(run: OpenRun, step: int) -> dict[int, float] | None:
    """c_s as training recorded them; none if the record has gaps."""
    with run.store.reading("training_metrics") as connection:
        rows = connection.execute(
            "select step, value from training_metrics where run = ? and metric = 'clip_factor' and step < ?",
            [run.spec.run, step],
        ).fetchall()
    return dict(rows) if len(rows) == step else None


def _gauss_newton(run: OpenRun, step: int, mechanisms: Sequence[str], emit: Emit) -> list[Estimated]:
    state, settings = run.state(step), Settings()
    most = settings.iterations * len(mechanisms)
    progress = Progress(emit, f"gauss_newton {run.spec.run} at {step}", most, "products at most")
    found = gauss_newton_scores(run.trainer, state, target_gradients(run, mechanisms)(state), settings, progress)
    metrics: list[list[Metric]] = [
        [("residual", WHOLE_SWEEP, residual), ("damping", WHOLE_SWEEP, found.damping)] for residual in found.residuals
    ]
    return estimated(list(_within(run, step, found.updates)), metrics)


def _ekfac(run: OpenRun, step: int, mechanisms: Sequence[str], emit: Emit) -> list[Estimated]:
    state = run.state(step)
    found = ekfac_scores(run.trainer, state, target_gradients(run, mechanisms)(state), run.spec.model, emit=emit)
    return estimated(list(_within(run, step, found.updates)), [[] for _ in mechanisms])


def _sketch(run: OpenRun, step: int, mechanisms: Sequence[str], emit: Emit) -> list[Estimated]:
    """First order from stored sketches; every update says how far its scores may be wrong."""
    sketcher, checkpoints = sketcher_of(run), checkpoints_before(run, step)
    stored = make_sketches(run, sketcher, checkpoints, emit)
    scores = sketched_scores(
        run.trainer,
        sketcher,
        checkpoints,
        run.state,
        lambda begin: read_sketches(run, begin, stored[begin]),
        target_gradients(run, mechanisms),
        clip_factors=_clip_factors(run, step),
    )
    first = first_update(step, run.spec.influence.horizon)
    found = [each for each in scores if each.update.step >= first]
    metrics: list[list[Metric]] = [[] for _ in mechanisms]
    for each in found:
        for of_target, squares in zip(metrics, each.errors.double().square().mean(1).tolist(), strict=True):
            of_target.append(("standard_error", each.update.step, math.sqrt(squares)))
    return estimated([each.update for each in found], metrics)


_ESTIMATORS: dict[str, _Estimator] = {
    "adjoint_mean": mean_influence,
    "gradient_dot": _first_order("gradient_dot"),
    "gradient_dot_adam": _first_order("gradient_dot_adam"),
    "gauss_newton": _gauss_newton,
    "ekfac": _ekfac,
    "sketch": _sketch,
}


def _agreement(run: OpenRun, step: int, mechanism: str, scores: ExampleScores) -> tuple[list[Metric], bool | None]:
    """Rank correlation of example totals with those of the exact adjoint, if it is there."""
    exact = stored_totals(run, step, mechanism, ADJOINT)
    totals: dict[str, float] = {}
    ids = run.tokens.example_ids
    effects = weights_of(run, scores) * scores.values.sum(axis=1)
    for example, value in zip(scores.example.tolist(), effects.tolist(), strict=True):
        totals[str(ids[example])] = totals.get(str(ids[example]), 0.0) + value
    both = sorted(set(exact) & set(totals))
    pair = np.array([[exact[i] for i in both], [totals[i] for i in both]]).reshape(2, -1)
    found = agreement(torch.from_numpy(pair[0]), torch.from_numpy(pair[1]), resamples=200)
    metrics: list[Metric] = [("compared_examples", WHOLE_SWEEP, float(len(both)))]
    if math.isnan(found.correlation):
        return metrics, None
    metrics += [
        ("agreement", WHOLE_SWEEP, found.correlation),
        ("agreement_lower", WHOLE_SWEEP, found.low),
        ("agreement_upper", WHOLE_SWEEP, found.high),
    ]
    return metrics, found.low >= AGREEMENT_LIMIT
