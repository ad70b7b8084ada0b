"""Any step's exact state: read where it is kept, else replayed from the kept state before it.

Costs the training of the updates in between, and nothing of the updates after it. That the bits are those of training
rests on the run being replayed on the device and with the versions that it was trained with; the next kept state tells
(`check`), at the cost of the updates up to there.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from mech_pipeline.errors import MechError
from mech_pipeline.exchange.audit import check_replayable
from mech_pipeline.pipeline.needs import Need
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.progress import Report, ignore_progress
from mech_pipeline.store.files.local import write_whole
from mech_pipeline.training.checkpoints import pack_state, state_sha256
from mech_pipeline.training.device import computing
from mech_pipeline.training.update.optimizer import State


@dataclass(frozen=True)
class Described:
    """What is written beside a state.

    Attributes:
        fingerprint: the run's identity.
        replayed_from: the kept state that the replay began at; the step itself where it is kept.
        checked_at: a kept state after it that the replay reached with the same bits; none: not tried.
        sha256: of step, weights and moments, as `data_version` of the table `checkpoints` has it.
    """

    run: str
    step: int
    fingerprint: str
    replayed_from: int
    checked_at: int | None
    sha256: str
    optimizer: Mapping[str, object]
    tensors: str = "model.*: weights; exp_avg.*, exp_avg_sq.*: the optimizer's moments"


def state_at(
    run: OpenRun, step: int, *, check: bool = False, replay: bool = False, report: Report = ignore_progress
) -> tuple[State, Described]:
    """The state after `step` updates, and what is to be said of it.

    Args:
        check: go on to the next kept state and compare.
        replay: replay also where the state is kept; for tests.
        report: called with the number of updates done.

    Raises:
        MechError: the step lies outside of the run, nothing is kept before it, or the replay is not the training.
    """
    kept = sorted(run.checkpoints)
    before = [each for each in kept if each < step or (each == step and not replay)]
    if not 0 <= step <= run.spec.training.steps or not before:
        reach = f"steps {kept[0]} to {run.spec.training.steps} can be had" if kept else "no checkpoint is kept"
        raise MechError(
            f"run {run.spec.run} has no step {step}: {reach}", "choose one of them, or `mech run` its experiment"
        )
    if Need.MOMENTS not in run.brings:
        raise MechError(
            f"checkpoints of run {run.spec.run} hold weights alone: it was trained elsewhere",
            f"mech_pipeline.open({run.spec.run!r}).model({step}) gives the model",
        )
    until = next((each for each in kept if each > step), None) if check else None
    state = run.state(before[-1])
    if step > before[-1] or until is not None:
        check_replayable(run)
    with computing(run.spec.training):
        wanted = state = _replayed(run, state, step, report)
        if until is not None:
            run.verify(_replayed(run, state, until, ignore_progress))
    run.verify(wanted)
    return wanted, _described(run, wanted, before[-1], until)


def _replayed(run: OpenRun, state: State, until: int, report: Report) -> State:
    begin = state.step
    for made in run.trainer.updates(state, until):
        state = made.after
        report(state.step - begin)
    return state


def _described(run: OpenRun, state: State, begin: int, checked: int | None) -> Described:
    with run.store.reading("runs") as connection:
        (row,) = connection.execute("select fingerprint from runs where run = ?", [run.spec.run]).fetchall()
    spec = run.spec
    return Described(
        spec.run, state.step, row[0], begin, checked, state_sha256(state), spec.optimizer.model_dump(mode="json")
    )


def write_state(run: OpenRun, state: State, described: Described, folder: Path) -> tuple[Path, Path]:
    """`<run>.step<step>.safetensors` and the same with .json, each whole or not at all; returns where they are."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{described.run}.step{described.step:08d}.safetensors"
    beside = path.with_suffix(".json")
    write_whole(path, pack_state(state, run.trainer.flat))
    write_whole(beside, json.dumps(asdict(described), indent=2).encode() + b"\n")
    return path, beside
