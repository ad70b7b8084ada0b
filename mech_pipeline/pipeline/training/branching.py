"""A run that does something to its examples or its model only from some update on begins where another run was then.

Until that update training is the same: initialisation, order of examples, and weights of 1. So the states before it are those
of any run whose checkpoints are made from just that (in an experiment: the arm that is chosen by, in the run of the same seed),
bit for bit, and they are copied with their metrics instead of being trained again. Each run keeps files of its own:
verification, repair and deletion of one run do not touch another. What the other run lacks, or what is damaged, is trained.

States go over only between runs of one device kind, thread count and versions of packages, because these decide bits.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from safetensors.torch import load, save

from mech_pipeline.data.rearranged import RearrangedOrder
from mech_pipeline.errors import MechError
from mech_pipeline.pipeline.cells import Block, Cell, write
from mech_pipeline.pipeline.checkpoints import (
    TRAINING_VERSION,
    checkpoint_fingerprint,
    training_fingerprint,
    trunk_fingerprint,
)
from mech_pipeline.pipeline.grid import kept_steps
from mech_pipeline.pipeline.look import among
from mech_pipeline.pipeline.order import order_of
from mech_pipeline.pipeline.tokens.tokens import load_tokens
from mech_pipeline.pipeline.training.publisher import OnCheckpoint, Saved, checkpoint_block
from mech_pipeline.pipeline.training.wanted import missing_checkpoints
from mech_pipeline.progress import Emit
from mech_pipeline.provenance import device, versions_json
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.store.blobs import Blob
from mech_pipeline.store.store import Store

_AT_ONCE = 64
"""States of one commit: what a kill can cost is copied again."""
_NO_MATTER = ("git_commit", "mech-pipeline")
"""Versions that decide no bits; what does in our own code is in the fingerprint."""


@dataclass(frozen=True)
class _Kept:
    """A state that another run trained.

    Attributes:
        before: the kept step before it in the run that takes it over.
        run: the other run.
    """

    before: int
    step: int
    run: str
    blob: Blob
    version: str
    weights_sha256: str


def departs_at(store: Store, spec: RunSpec) -> int:
    """The first update that a run does otherwise than without its weights, order and interventions; its length if none."""
    tokens, steps = load_tokens(store, spec), spec.training.steps
    order, weights = order_of(store, spec, tokens), tokens.weights
    found = order.departs_at(steps) if isinstance(order, RearrangedOrder) else steps
    if weights is not None:
        found = int(np.min(weights.first[weights.weight != 1.0], initial=found))
    return min([found, *(each.begin for each in spec.interventions)])


def take_over(store: Store, spec: RunSpec, on_checkpoint: OnCheckpoint, emit: Emit) -> int:
    """Copies the missing states that another run of the same training has; returns how many.

    Scores of examples that training itself computes (`in_training`) are not copied: a run that asks for them is trained
    from its beginning.
    """
    if not (spec.treatments or spec.interventions) or spec.in_training.mechanisms:
        return 0
    training, trunk = training_fingerprint(store, spec), trunk_fingerprint(store, spec)
    missing = missing_checkpoints(store, spec)
    if training is None or trunk is None or not missing:
        return 0
    until = departs_at(store, spec)
    found = _kept_elsewhere(store, spec, trunk, [step for step in missing if step <= until]) if until else []
    taken = list[int]()
    for begin in range(0, len(found), _AT_ONCE):
        some = found[begin : begin + _AT_ONCE]
        saved = _copied(store, spec, training, some, emit)
        for one in saved:
            on_checkpoint(one)
        taken += [one.step for one in saved]
    if taken:
        emit(f"train {spec.run}: {len(taken)} states until step {taken[-1]} are those of run {found[0].run}")
    return len(taken)


def _kept_elsewhere(store: Store, spec: RunSpec, trunk: str, steps: list[int]) -> list[_Kept]:
    """States of these steps that a run of the experiment keeps, made by the same training on what makes the same bits."""
    wanted = [checkpoint_fingerprint(trunk, step) for step in steps]
    with store.reading("runs", "checkpoints") as connection:
        runs = connection.execute(
            "select run, device, versions from runs where experiment = ? and seed = ? and run <> ?",
            [spec.experiment, spec.seed, spec.run],
        ).fetchall()
        alike = [run for run, on, versions in runs if on == _device(spec) and _deciding(versions) == _deciding_here()]
        if not alike:
            return []
        rows = connection.execute(
            "select step, run, uri, bytes, sha256, data_version, weights_sha256 from checkpoints "
            f"where {among('run', alike)} and list_contains(?, input_fingerprint) order by run, step",
            [*alike, wanted],
        ).fetchall()
    grid = kept_steps(store, spec)
    before = {0: 0} | dict(zip(grid[1:], grid, strict=False))
    return [
        _Kept(before[step], step, run, Blob(uri, size, sha256), version, weights)
        for step, run, uri, size, sha256, version, weights in rows
        if run == rows[0][1]
    ]


def _device(spec: RunSpec) -> str:
    return device(spec.training.device, spec.training.threads)


def _deciding(versions: str) -> dict[str, str]:
    return {name: version for name, version in json.loads(versions).items() if name not in _NO_MATTER}


def _deciding_here() -> dict[str, str]:
    return _deciding(versions_json())


def _copied(store: Store, spec: RunSpec, training: str, some: Sequence[_Kept], emit: Emit) -> list[Saved]:
    """Publishes some states as a run's own: metrics, then files, then the rows that make the checkpoints exist."""
    metrics, blocks, saved = list[Block](), list[Block](), list[Saved]()
    measured = _measured(store, some)
    for one in some:
        made_from, updates = checkpoint_fingerprint(training, one.step), range(one.before, one.step)
        content = _content(store, one, emit)
        if content is None or not set(updates) <= set(measured):
            continue  # it will be trained
        if updates:
            rows = [(update, *row) for update in updates for row in measured[update].items()]
            columns = dict(zip(("step", "metric", "value"), map(list, zip(*rows, strict=True)), strict=True))
            metrics.append(Block(Cell("training_metrics", spec.run), columns, made_from))
        made = Block(Cell("checkpoints", spec.run, one.step), {}, made_from, one.version)
        blocks.append(
            checkpoint_block(store, spec, made, one.weights_sha256, partial(_described, content), taken_from=one.run)
        )
        saved.append(Saved(one.step, one.version, made_from, measured.get(one.step - 1, {})))
    if metrics:
        steps = sorted({step for block in metrics for step in block.columns["step"]})
        write(store, metrics, TRAINING_VERSION, within={"step": steps})
    if blocks:
        write(store, blocks, TRAINING_VERSION)
    return saved


def _described(content: bytes, metadata: Mapping[str, str]) -> bytes:
    """The same tensors in a file that says something else of itself."""
    return save(load(content), metadata=dict(metadata))


def _content(store: Store, one: _Kept, emit: Emit) -> bytes | None:
    what = f"checkpoint {one.step} of run {one.run}"
    try:
        return store.get_blob(one.blob, what, "`mech verify --repair`")
    except MechError as error:
        emit(f"not taken over, but trained: {error.problem}")
        return None


def _measured(store: Store, some: Sequence[_Kept]) -> dict[int, dict[str, float]]:
    """Metrics of the updates that led to these states, by update, as the run measured them that has the states."""
    found: dict[int, dict[str, float]] = {}
    with store.reading("training_metrics", "checkpoints") as connection:
        rows = connection.execute(
            "select step, metric, value from training_metrics where run = ? and step >= ? and step < ? and "
            "input_fingerprint in (select input_fingerprint from checkpoints where run = ?) order by all",
            [some[0].run, some[0].before, some[-1].step, some[0].run],
        ).fetchall()
    for step, metric, value in rows:
        found.setdefault(step, {})[metric] = value
    return found
