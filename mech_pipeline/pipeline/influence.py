"""Influence partitions: a sweep from the target checkpoint back to step 0, with its reliability beside it."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from mech_pipeline.attribution.influence import UpdateInfluence, influence_sweep
from mech_pipeline.attribution.reliability import METASMOOTH_LIMIT, adjoint_growth, metasmoothness
from mech_pipeline.errors import MechError
from mech_pipeline.mechanisms.registry import MECHANISMS
from mech_pipeline.pipeline.checkpoints import provenance_columns
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.progress import Progress
from mech_pipeline.spec.fingerprint import fingerprint
from mech_pipeline.store.currency import Cell, outdated, stored_versions
from mech_pipeline.store.rows import content_version
from mech_pipeline.store.tables import TABLES
from mech_pipeline.training.device import computing

CODE_VERSION = "1"
WHOLE_SWEEP = -1


def wanted(run: OpenRun, step: int, mechanisms: tuple[str, ...] | None = None) -> dict[Cell, str]:
    """Fingerprints of the influence cells at a target step."""
    chosen = run.spec.influence
    settings = [chosen.metasmoothness_steps, chosen.metasmoothness_size]
    state = run.checkpoint_version(step)
    return {
        (step, name): fingerprint(
            "influence",
            CODE_VERSION,
            name,
            MECHANISMS[name].version,
            state,
            run.artifacts["probe"],
            run.training,
            settings,
        )
        for name in (chosen.mechanisms if mechanisms is None else mechanisms)
    }


def pending(run: OpenRun, step: int, mechanisms: tuple[str, ...] | None = None) -> list[Cell]:
    """Influence cells that must be computed; a cell counts only together with its reliability."""
    cells = wanted(run, step, mechanisms)
    missing = outdated(stored_versions(run.store, "influence", run.spec.run), cells)
    unrated = outdated(stored_versions(run.store, "reliability", run.spec.run), cells)
    return sorted(set(missing) | set(unrated))


def compute_influence(
    run: OpenRun, step: int, emit: Callable[[str], None] = lambda line: None, mechanisms: tuple[str, ...] | None = None
) -> int:
    """Computes what is pending at a target step; returns the number of cells.

    Raises:
        MechError: the target is step 0, which no example has influenced.
    """
    if step == 0:
        raise MechError(f"influence at step 0 of run {run.spec.run}: no example has been seen yet", "name a later step")
    todo = pending(run, step, mechanisms)
    with computing(run.spec.training):
        for _, name in todo:
            _compute(run, step, name, wanted(run, step, (name,))[step, name], emit)
    return len(todo)


def _compute(run: OpenRun, step: int, name: str, made_from: str, emit: Callable[[str], None]) -> None:
    state, flat = run.state(step), run.trainer.flat
    flat.load(state.theta)
    gradient = flat.gradient(MECHANISMS[name].value(flat.model, run.tokens.probe))
    windows = [partial(run.replay, begin, end) for begin, end in reversed(run.windows(step))]
    progress = Progress(emit, f"influence {run.spec.run} at {step}", step, "updates backwards")
    swept = list(influence_sweep(run.trainer, gradient, windows, progress))
    finite = [part for part in swept if bool(part.scores.isfinite().all())]
    if not finite:
        raise MechError(
            f"influence on {name} at step {step} of run {run.spec.run} is not finite anywhere",
            "the adjoint overflowed at once; train with the attributable optimizer preset",
        )
    reliability = _reliability(run, step, finite, swept, float(gradient.double().norm()), emit)
    _write(run, step, name, made_from, finite, reliability)


def _reliability(
    run: OpenRun,
    step: int,
    finite: list[UpdateInfluence],
    swept: list[UpdateInfluence],
    at_target: float,
    emit: Callable[[str], None],
) -> list[tuple[str, int, float]]:
    """(metric, update step, value) of one sweep."""
    growth = adjoint_growth([(part.step, part.adjoint_norm) for part in swept], at_target)
    horizon = max(growth.horizon_step, min(part.step for part in finite))
    scores = np.concatenate([part.scores.double().numpy() for part in finite])
    begins = {begin for begin, _ in run.windows(step)}
    rows = [
        ("adjoint_norm", part.step, part.adjoint_norm)
        for part in finite
        if part.step in begins and np.isfinite(part.adjoint_norm)
    ]
    rows += [
        ("adjoint_norm", step, at_target),
        ("adjoint_growth", WHOLE_SWEEP, min(growth.growth, float(np.finfo(np.float64).max))),
        ("horizon_step", WHOLE_SWEEP, float(horizon)),
        ("influence_sum", WHOLE_SWEEP, float(scores.sum() / np.abs(scores).sum())),
    ]
    smooth = _metasmoothness(run, step, emit)
    if smooth is not None:  # without it nothing is said about reliability, neither yes nor no
        rows.append(("metasmoothness", WHOLE_SWEEP, smooth))
        rows.append(("reliable", WHOLE_SWEEP, float(horizon == 0 and smooth >= METASMOOTH_LIMIT)))
    return rows


def _metasmoothness(run: OpenRun, step: int, emit: Callable[[str], None]) -> float | None:
    chosen = run.spec.influence
    if chosen.metasmoothness_steps == 0:
        return None
    start = max(s for s in run.planned if s <= max(0, step - chosen.metasmoothness_steps) and s in run.checkpoints)
    progress = Progress(
        emit, f"metasmoothness {run.spec.run}, updates {start}–{step}, twice", 2 * (step - start), "updates"
    )
    return metasmoothness(
        run.trainer, run.state(start), step, chosen.metasmoothness_size, run.state(step).theta, progress
    )


def _write(
    run: OpenRun,
    step: int,
    name: str,
    made_from: str,
    finite: list[UpdateInfluence],
    reliability: list[tuple[str, int, float]],
) -> None:
    key = {"run": run.spec.run, "step": step, "mechanism": name}
    replace = {column: [value] for column, value in key.items()}
    metrics: dict[str, list[Any]] = {column: [value] * len(reliability) for column, value in key.items()}
    metrics |= {
        "metric": [row[0] for row in reliability],
        "update_step": [row[1] for row in reliability],
        "value": [row[2] for row in reliability],
    }
    version = content_version(TABLES["reliability"], metrics)
    rows = metrics | provenance_columns(len(reliability), made_from, version)
    run.store.write("reliability", rows, replace=replace, code_version=CODE_VERSION)
    scores: dict[tuple[int, str], float] = {}
    for part in finite:
        for index, score in zip(part.examples.tolist(), part.scores.tolist(), strict=True):
            cell = part.step, str(run.tokens.example_ids[index])
            scores[cell] = scores.get(cell, 0.0) + score  # an example that came twice in one batch
    columns: dict[str, list[Any]] = {column: [value] * len(scores) for column, value in key.items()}
    columns |= {
        "update_step": [cell[0] for cell in scores],
        "example_id": [cell[1] for cell in scores],
        "value": list(scores.values()),
    }
    version = content_version(TABLES["influence"], columns)
    rows = columns | provenance_columns(len(scores), made_from, version)
    run.store.write("influence", rows, replace=replace, code_version=CODE_VERSION)
