"""The exact sweep of a run: all targets in one pass, resumed where a crash left it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from mech_pipeline.attribution.influence.influence import (
    SweepState,
    Target,
    UpdateInfluence,
    first_update,
    influence_sweep,
)
from mech_pipeline.attribution.influence.replay import Replayer
from mech_pipeline.attribution.ledger.ledger import batch_factors
from mech_pipeline.attribution.per_example.capture import Factors
from mech_pipeline.attribution.per_example.contraction import Contraction
from mech_pipeline.mechanisms.gradient import mechanism_gradient
from mech_pipeline.pipeline.cells import Cell
from mech_pipeline.pipeline.influence import sweep_state
from mech_pipeline.pipeline.influence.sweep_state import TargetScores
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.progress import Emit, Progress
from mech_pipeline.spec.fingerprint import fingerprint
from mech_pipeline.training.checkpoints import state_sha256
from mech_pipeline.training.update.optimizer import State

KEEP_EVERY_SECONDS = 30.0


@dataclass(frozen=True)
class SweptTarget:
    """One target with everything that was found for it.

    Attributes:
        norm: ‖∇M(θ_T)‖.
    """

    target: Target
    found: TargetScores
    norm: float


def sweep_targets(run: OpenRun, cells: Sequence[Cell], emit: Emit) -> list[SweptTarget]:
    """Sweeps once over all cells; returns them in the same order.

    What was finished of the same sweep before a crash is not computed again.
    """
    targets = [_target(run, cell) for cell in cells]
    last = max(target.step for target in targets)
    first = min(first_update(t.step, t.horizon) for t in targets)
    made_from = fingerprint("sweep", run.training, _settings(run), [[t.name, t.step, t.horizon] for t in targets])
    kept = sweep_state.find(run.store, run.spec.run, last, made_from, run.trainer.device)
    found = [TargetScores() for _ in targets] if kept is None else kept.found
    until = last if kept is None else kept.state.step
    many = f", {len(targets)} targets" if len(targets) > 1 else ""
    label = f"influence {run.spec.run} at {last}{many}"
    progress = Progress(emit, label, until - first, "updates backwards")
    if kept is not None:
        emit(f"{label}: continuing before update {until}")
    windows = [w for w in run.windows(last, [t.step for t in targets]) if first < w[1] <= until]
    replayer = Replayer(run.trainer, run.state, run.verify, partial(_is_checkpoint, run))
    saver = _Saver(run, last, made_from, found)
    swept = influence_sweep(
        run.trainer,
        targets,
        [partial(replayer.window, begin, end) for begin, end in reversed(windows)],
        progress,
        None if kept is None else kept.state,
        saver,
    )
    splitter = _Splitter(run) if run.spec.influence.components else None
    for part in swept:
        scores = part.scores.double().cpu().numpy()[:, None] if splitter is None else splitter(part)
        found[part.target].add(part, scores, tokens=run.spec.influence.tokens)
    return [SweptTarget(t, f, float(t.gradient.double().norm())) for t, f in zip(targets, found, strict=True)]


def _settings(run: OpenRun) -> list[bool]:
    return [run.spec.influence.components, run.spec.influence.tokens]


def _target(run: OpenRun, cell: Cell) -> Target:
    name, step = cell.item, cell.step
    assert name is not None, "influence is on a mechanism"
    assert step is not None, "at a step"
    run.trainer.flat.load(run.state(step).theta)
    return Target(name, step, mechanism_gradient(name, run.trainer.flat, run.tokens.probe), run.spec.influence.horizon)


def _is_checkpoint(run: OpenRun, state: State) -> bool:
    expected = run.checkpoints.get(state.step)
    return expected is None or state_sha256(state) == expected.data_version


class _Splitter:
    """Scores by component: ⟨∇_c ℓ_i, u_c⟩ / B, from one more forward and backward per update."""

    def __init__(self, run: OpenRun) -> None:
        self._run = run
        self._contraction = Contraction(run.trainer.flat, run.components)
        self._last: tuple[int, Factors] | None = None

    def __call__(self, part: UpdateInfluence) -> np.ndarray:
        if self._last is None or self._last[0] != part.step:  # targets of one update come one after another
            self._last = part.step, batch_factors(self._run.trainer, part.made, weighted=False)
        return self._contraction(self._last[1], part.direction[None])[0].cpu().numpy()


@dataclass
class _Saver:
    """Keeps the sweep at window ends, not more often than every half minute."""

    run: OpenRun
    step: int
    made_from: str
    found: list[TargetScores]
    _last: float = 0.0

    def __post_init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, state: SweepState) -> None:
        if time.monotonic() - self._last < KEEP_EVERY_SECONDS:
            return
        sweep_state.keep(self.run.store, self.run.spec.run, self.step, self.made_from, state, self.found)
        self._last = time.monotonic()
