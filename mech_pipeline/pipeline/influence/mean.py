"""The method `adjoint_mean`: the exact influence, averaged over trajectories of the run (`attribution.influence.trajectories`).

Every target step has trajectories of its own, drawn from the examples seen before it. A finished trajectory is kept in the
table `sweeps`, so a killed computation loses one. A number is stored where all trajectories have one.
"""

from collections.abc import Sequence
from functools import partial
from itertools import combinations

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mech_pipeline.attribution.influence.horizon import first_update
from mech_pipeline.attribution.influence.influence import SweepState
from mech_pipeline.attribution.influence.reliability import AdjointGrowth, adjoint_growth
from mech_pipeline.attribution.influence.trajectories import trajectory_influence, trajectory_sets
from mech_pipeline.errors import MechError
from mech_pipeline.pipeline.influence import sweep_state
from mech_pipeline.pipeline.influence.estimated import Estimated, Standing, target_gradients
from mech_pipeline.pipeline.influence.rows import WHOLE_SWEEP, Metric, weights_of
from mech_pipeline.pipeline.influence.score_rows import ExampleScores
from mech_pipeline.pipeline.influence.start import seen_examples, state_before
from mech_pipeline.pipeline.influence.sweep_state import TargetScores
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.progress import Emit, Progress, Report
from mech_pipeline.spec.fingerprint import fingerprint
from mech_pipeline.statistics.verdict import METASMOOTH_LIMIT
from mech_pipeline.store.tables.all import ADJOINT
from mech_pipeline.training.loop import Diverged
from mech_pipeline.training.update.optimizer import State


def mean_influence(run: OpenRun, step: int, mechanisms: Sequence[str], emit: Emit) -> list[Estimated]:
    """Scores and their standard errors, one of every mechanism."""
    trajectories = _swept(run, step, mechanisms, emit)
    found = [_averaged(run, step, name, [each[row] for each in trajectories]) for row, name in enumerate(mechanisms)]
    sweep_state.forget(run.store, run.spec.run, step)
    return found


def _swept(run: OpenRun, step: int, mechanisms: Sequence[str], emit: Emit) -> list[list[TargetScores]]:
    """What the sweep of every trajectory found, by mechanism; those that were kept before a crash are not swept again."""
    asked, begin = run.spec.influence.adjoint_mean, first_update(step, run.spec.influence.horizon)
    settings = [asked.share, asked.trajectories, asked.seed, begin]
    made_from = fingerprint("trajectories", run.training, run.checkpoint_version(step), list(mechanisms), settings)
    kept = sweep_state.find(run.store, run.spec.run, step, made_from, run.trainer.device)
    found = [] if kept is None else kept.found
    removed = trajectory_sets(seen_examples(run, begin, step), asked.share, asked.trajectories, asked.seed)
    label = f"adjoint_mean {run.spec.run} at {step}, {len(removed)} trajectories"
    each, done = 2 * (step - begin), len(found) // len(mechanisms)
    progress = Progress(emit, label, each * len(removed), "updates forwards and backwards")
    if done:
        emit(f"{label}: continuing after {done}")
    for number in range(done, len(removed)):
        report = partial(_report, progress, each * number)
        found += _trajectory(run, begin, step, mechanisms, removed[number], report)
        state = SweepState(begin, (), tuple(range(len(found))), None)
        sweep_state.keep(run.store, run.spec.run, step, made_from, state, found)
    return [found[at : at + len(mechanisms)] for at in range(0, len(found), len(mechanisms))]


def _report(progress: Report, before: int, done: int) -> None:
    progress(before + done)


def _trajectory(
    run: OpenRun, begin: int, step: int, mechanisms: Sequence[str], removed: NDArray[np.int64], report: Report
) -> list[TargetScores]:
    found, gradients = [TargetScores() for _ in mechanisms], target_gradients(run, mechanisms)

    def at_target(state: State) -> Tensor:
        rows = gradients(state)
        for scores, row in zip(found, rows, strict=True):
            scores.target_norm = float(row.double().norm())
        return rows

    try:
        for part in trajectory_influence(run.trainer, state_before(run, begin), step, removed, at_target, report):
            found[part.target].add(part, part.scores.double().cpu().numpy()[:, None])
    except Diverged as error:
        raise MechError(
            f"adjoint_mean of run {run.spec.run} at {step}: training without {len(removed)} random examples diverged "
            f"at update {error.step}",
            "leave adjoint_mean out of influence.methods, or train more stably; see `reliability`",
        ) from error
    return found


def _averaged(run: OpenRun, step: int, mechanism: str, found: Sequence[TargetScores]) -> Estimated:
    """The mean over trajectories of what every sweep found on one mechanism."""
    finite = [
        {s for s, part in zip(each.steps, each.parts, strict=True) if np.isfinite(part.astype(np.float32)).all()}
        for each in found
    ]
    steps = sorted(set.intersection(*finite))
    if not steps:
        raise MechError(
            f"the influence on {mechanism} at step {step} of run {run.spec.run} is not finite in all trajectories",
            "leave adjoint_mean out of influence.methods; train with the attributable optimizer preset",
        )
    swept = [_scores(each, steps) for each in found]
    mean = ExampleScores(swept[0].update_step, swept[0].example, np.mean([each.values for each in swept], axis=0))
    totals = np.stack([_totals(run, each) for each in swept])
    growths = [
        adjoint_growth(list(zip(each.steps, each.norms, strict=True)), each.target_norm or 0.0) for each in found
    ]
    horizon = max(min(steps), *(growth.horizon_step for growth in growths))
    metrics = _metrics(totals, growths, horizon, mean)
    return Estimated(mean, metrics, _standing(run, step, mechanism, horizon), standard_errors(totals))


def _scores(found: TargetScores, steps: Sequence[int]) -> ExampleScores:
    place = {step: index for index, step in enumerate(found.steps)}
    chosen = [place[step] for step in steps]
    return ExampleScores.gathered(steps, [found.examples[at] for at in chosen], [found.parts[at] for at in chosen])


def _totals(run: OpenRun, scores: ExampleScores) -> Float[np.ndarray, " pool"]:
    """Weight times influence of every example of the pool over its updates; NaN where no update saw it."""
    size = len(run.tokens.pool)
    total = np.bincount(scores.example, weights_of(run, scores) * scores.values[:, 0], minlength=size)
    total[np.bincount(scores.example, minlength=size) == 0] = np.nan
    return total


def standard_errors(totals: Float[np.ndarray, "trajectory pool"]) -> Float[np.ndarray, " pool"] | None:
    """sd / √K over trajectories; none of one.

    >>> standard_errors(np.array([[1.0, 2.0], [3.0, 2.0]])).tolist()
    [1.0, 0.0]
    """
    count = len(totals)
    return None if count < 2 else totals.std(axis=0, ddof=1) / np.sqrt(count)


def _metrics(
    totals: Float[np.ndarray, "trajectory pool"], growths: Sequence[AdjointGrowth], horizon: int, mean: ExampleScores
) -> list[Metric]:
    metrics: list[Metric] = [
        ("trajectories", WHOLE_SWEEP, float(len(totals))),
        ("adjoint_growth", WHOLE_SWEEP, min(max(each.growth for each in growths), float(np.finfo(np.float64).max))),
        ("horizon_step", WHOLE_SWEEP, float(horizon)),
        ("influence_sum", WHOLE_SWEEP, float(mean.values.sum() / max(np.abs(mean.values).sum(), 1e-300))),
    ]
    alike = trajectory_agreement(totals)
    return metrics if alike is None else [*metrics, ("trajectory_agreement", WHOLE_SWEEP, alike)]


def trajectory_agreement(totals: Float[np.ndarray, "trajectory pool"]) -> float | None:
    """Mean rank correlation of examples between two trajectories; none of fewer than two, or where it is undefined.

    >>> trajectory_agreement(np.array([[1.0, 2.0, 3.0], [2.0, 4.0, 9.0]]))
    1.0
    """
    from scipy import stats  # a second to import

    seen = totals[:, ~np.isnan(totals).any(axis=0)]
    if len(seen) < 2 or (np.ptp(seen, axis=1) == 0).any():
        return None
    pairs = combinations(stats.rankdata(seen, axis=1), 2)
    return float(np.mean([np.corrcoef(one, other)[0, 1] for one, other in pairs]))


def _standing(run: OpenRun, step: int, mechanism: str, horizon: int) -> Standing:
    """By the metasmoothness that stands beside the exact influence; it belongs to training."""
    with run.store.reading("reliability") as connection:
        rows = connection.execute(
            "select metric, value from reliability where run = ? and step = ? and mechanism = ? and method = ? "
            "and update_step = ?",
            [run.spec.run, step, mechanism, ADJOINT, WHOLE_SWEEP],
        ).fetchall()
    known = dict(rows)
    if "metasmoothness" not in known:
        return Standing(horizon, None)
    return Standing(horizon, known["metasmoothness"] >= METASMOOTH_LIMIT, int(known["metasmoothness_since"]))
