"""Which states of a run are kept: what the experiment plans, what a moving mechanism adds, what a zoom asks for.

planned: the grid of the spec, and inside its intervals the steps that `checkpoints.adaptive` adds where the watched
mechanism moved. It is a pure function of the spec and of stored mechanism values, so it may grow after an analysis;
ledger, formation, influence and report rest on it.
kept: the planned steps and those of zooms. A zoom shows more and changes no result.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from mech_pipeline.errors import MechError
from mech_pipeline.mechanisms.known import KNOWN
from mech_pipeline.pipeline.checkpoints import artifact_versions, current_checkpoints
from mech_pipeline.pipeline.holds import held_at
from mech_pipeline.pipeline.look import among, answer_of
from mech_pipeline.pipeline.stops import stopped_at
from mech_pipeline.spec.fingerprint import fingerprint
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.store.store import Store


def mechanism_versions() -> str:
    """One version for all mechanisms, for Dagster to display.

    A project's file that cannot be used is named when an experiment is read. Dagster starts all the same.
    """
    try:
        return fingerprint({name: mechanism.version for name, mechanism in KNOWN.mechanisms.items()})[:8]
    except MechError:
        return "unknown"


def mechanism_fingerprint(spec: RunSpec, mechanism: str, state_version: str, probe_version: str) -> str:
    """What the value of a mechanism at a checkpoint is made from."""
    version = KNOWN.mechanisms[mechanism].version
    return fingerprint("mechanism", mechanism, version, state_version, probe_version, spec.model)


def probe_version(mechanism: str, artifacts: Mapping[str, str]) -> str:
    """What a mechanism's probe data are made from.

    Args:
        artifacts: data version of each tokenised artifact of the run.
    """
    return _probe_data(KNOWN.mechanisms[mechanism].reads_text, artifacts)


def detector_probe_version(detector: str, artifacts: Mapping[str, str]) -> str:
    """What a detector's probe data are made from; a mechanism may have the same name."""
    return _probe_data(KNOWN.detectors[detector].reads_text, artifacts)


def _probe_data(reads_text: bool, artifacts: Mapping[str, str]) -> str:
    """The version of probe data.

    Sequences of the stored probe are its content; data of any other kind may depend on tokenizer and text as well.
    """
    probe = artifacts.get("probe", "")
    if not reads_text:
        return probe
    return fingerprint("probe data", probe, artifacts.get("tokenizer", ""), artifacts.get("corpus", ""))


def planned_steps(store: Store, spec: RunSpec) -> tuple[int, ...]:
    """The steps that the experiment's results rest on, as far as is known now."""
    last = last_step(store, spec)
    grid = tuple(step for step in spec.checkpoint_steps() if spec.imported is not None or step <= last)
    adaptive = spec.checkpoints.adaptive
    if adaptive is None:
        return grid
    values = _current_values(store, spec, adaptive.mechanism, grid)
    added: set[int] = set()
    for begin, end in pairwise(grid):
        if begin in values and end in values and abs(values[end] - values[begin]) >= adaptive.change:
            added |= set(range(begin - begin % adaptive.every, end, adaptive.every)) - set(range(begin))
    return tuple(sorted({*grid, *added}))


def last_step(store: Store, spec: RunSpec) -> int:
    """The last state of the run: where it stopped or is held, or where its plan ends."""
    ends = (stopped_at(store, spec), held_at(store, spec), spec.training.steps)
    return min(end for end in ends if end is not None)


def kept_steps(store: Store, spec: RunSpec) -> tuple[int, ...]:
    """The planned steps and those of every zoom into the run."""
    zoomed = [range(begin, end + 1, every) for begin, end, every in zooms(store, spec.run)]
    last = last_step(store, spec)
    inside = {step for steps in zoomed for step in steps if step <= last}
    return tuple(sorted({*planned_steps(store, spec), *inside}))


def zooms(store: Store, run: str) -> list[tuple[int, int, int]]:
    """(first step, last step, every) of each zoom into a run."""
    return answer_of(store, "zooms", run, lambda runs: _read_zooms(store, runs))


def _read_zooms(store: Store, runs: Sequence[str]) -> dict[str, list[tuple[int, int, int]]]:
    with store.reading("zooms", of=runs) as connection:
        rows = connection.execute(
            f"select run, first_step, last_step, every from zooms where {among('run', runs)} order by all", list(runs)
        ).fetchall()
    return {name: [tuple(zoom) for run, *zoom in rows if run == name] for name in runs}


def request_zoom(store: Store, spec: RunSpec, begin: int, end: int, every: int = 1) -> list[int]:
    """Asks for the states of a window to be kept, from now on; returns their steps.

    Raises:
        MechError: the window lies outside of the run.
    """
    if not 0 <= begin <= end <= last_step(store, spec):
        raise MechError(
            f"window {begin}:{end} is not inside run {spec.run}, which has steps 0 to {last_step(store, spec)}",
            "name FROM:TO within it",
        )
    row: dict[str, list[Any]] = {"run": [spec.run], "first_step": [begin], "last_step": [end], "every": [every]}
    store.write("zooms", row, replace=row)
    return list(range(begin, end + 1, every))


def _current_values(store: Store, spec: RunSpec, mechanism: str, steps: tuple[int, ...]) -> dict[int, float]:
    """Values of a mechanism at those of the steps where they are current."""
    probe = probe_version(mechanism, artifact_versions(store, spec.run))
    states = current_checkpoints(store, spec)
    with store.reading("mechanism_values", of=[spec.run]) as connection:
        rows = connection.execute(
            "select step, value, input_fingerprint from mechanism_values where run = ? and mechanism = ?",
            [spec.run, mechanism],
        ).fetchall()
    return {
        step: value
        for step, value, made_from in rows
        if step in steps
        and step in states
        and made_from == mechanism_fingerprint(spec, mechanism, states[step].data_version, probe)
    }
