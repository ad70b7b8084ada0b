"""Loss changes of probe tokens, window by window. A cell is one window, in two tables; it is stored only if it balances."""

from collections.abc import Callable, Iterable

import torch

from mech_pipeline.discovery.movement import Meter, Movement
from mech_pipeline.errors import MechError
from mech_pipeline.pipeline.analysis.late import late_steps
from mech_pipeline.pipeline.cells import Block, Cell, write
from mech_pipeline.pipeline.discovery.probe import drawn_for
from mech_pipeline.pipeline.discovery.wanted import MOVEMENT_VERSION, pending_movement, wanted_movement, windows
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.progress import Emit, Report, ignore_progress
from mech_pipeline.training.device import computing
from mech_pipeline.training.flat import FlatModel
from mech_pipeline.training.model import build_model
from mech_pipeline.training.update.optimizer import Vector

_TOGETHER = 64
PIECE = 5
"""Updates of a straight piece, at most, where `path` is `pieces`."""
NODES = {"updates": 2, "pieces": 4, "chord": 6}
"""Of each straight piece: the fewest with which no window of the demo had to be done again (docs/log.md)."""


def compute_movement(
    run: OpenRun,
    steps: Iterable[int],
    on_steps: Callable[[list[int]], None] = lambda done: None,
    report: Report = ignore_progress,
    emit: Emit = lambda line: None,
) -> int:
    """Computes what is pending; returns the number of windows.

    Args:
        on_steps: called with the ends of windows whose rows are stored (current ones first).
        report: called with the number of windows done.
        emit: told how much memory it takes, before it begins.

    Raises:
        MechError: a token's parts do not sum to its measured change; of that window nothing is stored.
    """
    steps = list(steps)
    cells, todo = wanted_movement(run, steps), pending_movement(run, steps)
    if todo:
        emit(memory_line(run, max(cell.step - windows(run)[cell.step] for cell in todo if cell.step is not None)))
    with computing(run.spec.training):
        meter = _meter(run) if todo else None
        for done, end in enumerate(late_steps(cells, todo, on_steps), start=1):
            assert meter is not None, "something is pending"
            begin = windows(run)[end]
            moved = meter.movement(_path(run, begin, end), NODES[run.spec.discovery.path])
            _check(run, begin, end, moved)
            _store(run, end, moved, cells[Cell("token_movement", run.spec.run, end)])
            report(done)
    return len(todo)


def memory_line(run: OpenRun, updates: int) -> str:
    """What will be held: the states of the longest window, and the activations of some probe sequences."""
    flat, spec = run.trainer.flat, run.spec
    held = {"updates": updates + 1, "pieces": -(-updates // PIECE) + 1, "chord": 2}[spec.discovery.path]
    states = 4 * held * flat.vector.numel()
    layer = 12 * spec.model.d_model + 2 * spec.model.heads * spec.data.context
    activations = 4 * _TOGETHER * spec.data.context * (spec.model.layers * layer + 4 * run.tokens.vocabulary)
    return (
        f"movement {spec.run}: {spec.discovery.tokens} probe tokens × {len(run.components.names)} components; holds "
        f"{held} states of {4 * flat.vector.numel() / 1e6:.1f} MB and about {activations / 1e6:.0f} MB of activations, "
        f"{(states + activations) / 1e6:.0f} MB in all"
    )


def _meter(run: OpenRun) -> Meter:
    tokens = run.tokens
    exact = build_model(run.spec.model, tokens.vocabulary, tokens.pool.shape[1], run.spec.seed).double()
    flat = run.trainer.flat
    return Meter(flat, FlatModel(exact.to(flat.vector.device)), run.components, drawn_for(run).probe)


def _path(run: OpenRun, begin: int, end: int) -> list[Vector]:
    """θ after every update of a window, or every few of them, replayed and verified; or its two ends."""
    if run.spec.discovery.path == "chord":
        return [run.weights(begin), run.weights(end)]
    apart = PIECE if run.spec.discovery.path == "pieces" else 1
    state = run.state(begin)
    path = [state.theta]
    for count, made in enumerate(run.trainer.updates(state, end), start=1):
        state = made.after
        if count % apart == 0 or begin + count == end:
            path.append(state.theta)
    run.verify(state)
    return path


def _check(run: OpenRun, begin: int, end: int, moved: Movement) -> None:
    if not bool(moved.parts.isfinite().all()):
        raise MechError(
            f"movement of run {run.spec.run}, updates {begin} to {end}: losses of probe tokens are no numbers",
            "look at the loss of its training",
        )
    missed = int((~moved.balanced).sum())
    if missed:
        raise MechError(
            f"movement of run {run.spec.run}, updates {begin} to {end}: the parts of {missed} probe tokens miss their measured "
            f"change by up to {float(moved.error.max()):.1e} nats; nothing of it was stored",
            "plan more checkpoints there, or use `path: updates`; kinks of ReLU need smaller steps",
        )


def _store(run: OpenRun, end: int, moved: Movement, made_from: str) -> None:
    count, parts = moved.parts.shape
    cell = Cell("token_movement", run.spec.run, end)
    losses = {
        "probe_token": list(range(count)),
        "loss_before": moved.before.tolist(),
        "loss": moved.after.tolist(),
        "explained": moved.parts.sum(1).tolist(),
    }
    rows = {
        "probe_token": torch.arange(count).repeat_interleave(parts).tolist(),
        "component": list(run.components.names) * count,
        "value": moved.parts.flatten().tolist(),
    }
    write(run.store, [Block(cell.of("token_losses"), losses, made_from)], MOVEMENT_VERSION)
    write(run.store, [Block(cell, rows, made_from)], MOVEMENT_VERSION)
