"""What is found among tokens that need the same heads and MLPs: every predicted token of the probe's sequences is looked at."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray

from mech_pipeline.discovery.formed import Formed, discoveries
from mech_pipeline.discovery.needs import (
    FIRST,
    ORDERED_AT_ONCE,
    TOGETHER,
    Look,
    Needs,
    chosen,
    clusters_of_needs,
    parts_of,
)
from mech_pipeline.errors import MechError
from mech_pipeline.pipeline.discovery.discovery import store_found
from mech_pipeline.pipeline.discovery.probe import DrawnTokens, drawn_for
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.progress import Emit, Report, ignore_progress
from mech_pipeline.spec.seeds import numpy_generator
from mech_pipeline.training.device import computing

_LOOKS = 8
"""Parts of the run at whose ends heads and MLPs are held at their means, but for the first."""
_ORDERS = 2
_MOST = 12_000
"""Tokens that are clustered, at most: the time of HDBSCAN grows with their square."""
FOLLOWED = 48
"""Tokens of a cluster whose gain is measured at every checkpoint."""


def compute_needs(run: OpenRun, report: Report = ignore_progress, emit: Emit = lambda line: None) -> int:
    """Finds what formed and stores it.

    Args:
        report: called with the number of looks done (`looks_of`).
        emit: told how much memory it takes, before it begins, and why nothing is found, where too few tokens need the order of
            what came before them.

    Raises:
        MechError: see `Needs.check`; nothing is written.
    """
    emit(memory_line(run))
    with computing(run.spec.training):
        drawn = drawn_for(run)
        needs = look_at(run, drawn, report)
        if (why := needs.check(run.spec.discovery.smallest)) is not None:
            emit(f"discovery {run.spec.run}: {why}")
        labels = clusters_of_needs(needs, run.spec.discovery.smallest)
        needs = with_gains(run, drawn, needs, labels)
    found = found_in(needs, labels, run.spec.discovery.seed)
    store_found(run, drawn.at(needs.row, needs.position), needs, found, _courses(needs, found))
    return 1


def memory_line(run: OpenRun) -> str:
    """What will be held: numbers of every kept token (at most `_MOST`), orders of contexts, activations and logits of a forward."""
    spec, checkpoints = run.spec, len(run.planned)
    parts, length = len(parts_of(run.trainer.flat.model, spec.model.heads)), spec.data.context
    tokens = min(_MOST, spec.discovery.tokens * max(0, length - FIRST))
    numbers = 8 * tokens * (3 * checkpoints + 3 * _LOOKS * parts)
    orders = 24 * min(ORDERED_AT_ONCE, spec.discovery.tokens * length**2)
    layer = 12 * spec.model.d_model + 2 * spec.model.heads * length
    forward = 4 * TOGETHER * length * (spec.model.layers * layer + 4 * run.tokens.vocabulary)
    return (
        f"needs {spec.run}: {spec.discovery.tokens} examples of {length} tokens, {checkpoints} checkpoints, {parts} heads and "
        f"MLPs; holds up to {(numbers + orders + forward) / 1e6:.0f} MB, of which {numbers / 1e6:.0f} MB are what tokens need"
    )


def look_at(run: OpenRun, drawn: DrawnTokens, report: Report = ignore_progress) -> Needs:
    """The tokens that need the order of what came before them at the last checkpoint, and what else they need."""
    model, sequences = run.trainer.flat, drawn.probe.tokens
    look = Look(model.model.eval(), sequences.to(model.vector.device))
    steps = np.array([step for step in run.planned if step in run.checkpoints])
    generator = numpy_generator(run.spec.discovery.seed, "other orders: choice")
    model.load(run.weights(int(steps[-1])))
    rows, positions = chosen(_gains(look, *_everywhere(sequences), generator, sequences.shape), _MOST, generator)
    parts, looks = parts_of(model.model, run.spec.model.heads), looks_of(steps)
    losses, without = np.empty((len(rows), len(steps))), np.empty((len(rows), len(looks), len(parts)))
    for place, step in enumerate(steps.tolist()):
        model.load(run.weights(step))
        losses[:, place] = look.losses()[rows, positions]
        for number in np.flatnonzero(looks == step):
            for index, loss in enumerate(look.without(parts)):
                without[:, number, index] = loss[rows, positions] - losses[:, place]
        report(place + 1)
    return Needs(
        rows,
        positions,
        steps,
        losses,
        looks,
        tuple(part.name for part in parts),
        without,
        np.full(losses.shape, np.nan),
    )


def looks_of(steps: Int[NDArray, " checkpoint"]) -> Int[NDArray, " look"]:
    """The checkpoints at which parts are held at their means: evenly over all but the first quarter.

    >>> looks_of(np.arange(0, 41, 2)).tolist()
    [10, 16, 20, 24, 30, 36, 40]
    """
    return steps[np.unique(np.rint(np.arange(2, _LOOKS + 1) * (len(steps) - 1) / _LOOKS).astype(int))]


def with_gains(run: OpenRun, drawn: DrawnTokens, needs: Needs, labels: Int[NDArray, " token"]) -> Needs:
    """The same with what the order of the context is worth to some tokens of each cluster, at every checkpoint."""
    model, tokens = run.trainer.flat, np.flatnonzero(followed(labels, run.spec.discovery.seed))
    look = Look(model.model.eval(), drawn.probe.tokens.to(model.vector.device))
    generator = numpy_generator(run.spec.discovery.seed, "other orders: course")
    gained = np.full(needs.losses.shape, np.nan)
    for place, step in enumerate(needs.steps.tolist()):
        model.load(run.weights(step))
        behind = look.disordered(needs.row[tokens], needs.position[tokens], generator)
        gained[tokens, place] = behind - needs.losses[tokens, place]
    return replace(needs, gained=gained)


def followed(labels: Int[NDArray, " token"], seed: int) -> NDArray[np.bool_]:
    """Up to `FOLLOWED` tokens of each cluster, at random."""
    order = numpy_generator(seed, "followed tokens").permutation(len(labels))
    mine = np.zeros(len(labels), dtype=bool)
    for label in range(int(labels.max(initial=-1)) + 1):
        mine[order[labels[order] == label][:FOLLOWED]] = True
    return mine


def found_in(needs: Needs, labels: Int[NDArray, " token"], seed: int) -> list[Formed]:
    """What formed in every cluster, most gained first; measured on the followed tokens, with all of its tokens named."""
    measured = np.where(np.isfinite(needs.gained).all(1), labels, -1)
    of = {int(one.tokens[0]): one for one in discoveries(needs, measured, seed)}
    return [replace(one, tokens=np.flatnonzero(labels == labels[first])) for first, one in of.items()]


def _everywhere(sequences: torch.Tensor) -> tuple[Int[NDArray, " token"], Int[NDArray, " token"]]:
    """Every place with a context that has another order.

    Raises:
        MechError: there is none.
    """
    count, length = sequences.shape
    if length <= FIRST:
        raise MechError(
            f"examples of {length} tokens have no context that could have another order",
            f"raise data.context above {FIRST}, or take another `discovery.by`",
        )
    inside = np.arange(FIRST, length)
    return np.repeat(np.arange(count), len(inside)), np.tile(inside, count)


def _gains(
    look: Look,
    rows: Int[NDArray, " token"],
    positions: Int[NDArray, " token"],
    generator: np.random.Generator,
    shape: torch.Size,
) -> Float[NDArray, "sequence place"]:
    behind = np.mean([look.disordered(rows, positions, generator) for _ in range(_ORDERS)], axis=0)
    gains = np.full(tuple(shape), np.nan)
    gains[rows, positions] = behind - look.losses()[rows, positions]
    return gains


def _courses(needs: Needs, found: list[Formed]) -> dict[str, list[Any]]:
    """Mean loss and gain of every cluster at every checkpoint, and what it loses without each part at every look."""
    columns: dict[str, list[Any]] = {"step": [], "cluster": [], "measure": [], "value": []}
    for cluster, one in enumerate(found):
        courses = {"loss": needs.losses[one.tokens].mean(0), "order": np.nanmean(needs.gained[one.tokens], axis=0)}
        courses |= {part: needs.without[one.tokens, :, index].mean(0) for index, part in enumerate(needs.parts)}
        for measure, values in courses.items():
            steps = needs.steps if measure in ("loss", "order") else needs.looks
            columns["step"] += steps.tolist()
            columns["cluster"] += [cluster] * len(steps)
            columns["measure"] += [measure] * len(steps)
            columns["value"] += values.tolist()
    return columns
