"""The stage `scoring`: locks the rule of every signal on explored seeds, once, and evaluates it on the others."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mech_pipeline.errors import MechError
from mech_pipeline.pipeline.cells import Block, Cell, combined_version, stored_versions, write
from mech_pipeline.pipeline.holds import held_at
from mech_pipeline.pipeline.signals.runs import cast, event_name, scored_runs
from mech_pipeline.pipeline.stage import Cells, View
from mech_pipeline.progress import Emit
from mech_pipeline.spec.experiment import Experiment
from mech_pipeline.spec.fingerprint import fingerprint
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.store.store import Store

CODE_VERSION = "1"
"""Of locking and scoring. Raising it leaves locks as they are: what was decided on explored runs stays decided."""


def lock_cell(experiment: Experiment) -> Cell:
    """The lock of an experiment."""
    return Cell("signal_locks", experiment.experiment)


def lock_made_from(store: Store, experiment: Experiment) -> str:
    """Everything that the lock rests on: what is scored with what, and the explored runs' values and events."""
    signals = experiment.signals
    asked = [signals.measure, event_name(experiment), signals.events, signals.negatives, signals.explore_seeds]
    event = next(event for event in experiment.formation if event.signal == event_name(experiment))
    return fingerprint("lock", asked, event, signals.claim, _versions(store, scored_runs(experiment, explored=True)))


def wanted(view: View) -> Cells:
    """The lock, the scores that follow from it, and every alarm."""
    experiment, store = view.whole, view.store
    if not experiment.signals.scored:
        return {}
    locked = lock_made_from(store, experiment)
    scored = fingerprint("scores", CODE_VERSION, locked, _versions(store, scored_runs(experiment, explored=False)))
    return {
        lock_cell(experiment): locked,
        **{Cell(table, experiment.experiment): scored for table in ("signal_scores", "signal_alarms")},
    }


def refused(view: View) -> str | None:
    """A lock is written once: what would change it is refused, because unseen runs may have been looked at since.

    Runs that are held are no evidence yet: whether the behaviour comes in them is known once they are released.
    """
    if view.experiment is None or not view.experiment.signals.scored:
        return None
    experiment, store = view.experiment, view.store
    held = [spec.run for spec in scored_runs(experiment, explored=False) if held_at(store, spec) is not None]
    if held:
        return f"waits for runs that their alarm holds: {len(held)}, the first of them {held[0]}; see `mech status`"
    stored = stored_versions(store, "signal_locks", experiment.experiment).get(lock_cell(experiment))
    if stored is None or stored.input_fingerprint == lock_made_from(store, experiment):
        return None
    return (
        f"would change a lock: signals, arms, event, claim or explored runs of experiment {experiment.experiment} are not "
        "those that its alarms were decided by, and the other seeds are no longer unseen. Take the change back, or give the "
        "experiment another name and other seeds to evaluate"
    )


def _versions(store: Store, specs: Sequence[RunSpec]) -> list[list[str]]:
    """What is read of each run."""
    return [
        [spec.run, *(combined_version(stored_versions(store, table, spec.run).values()) for table in _READ)]
        for spec in specs
    ]


_READ = ("signal_values", "formation")


def compute(view: View, emit: Emit) -> int:
    """Locks if there is no lock yet, then evaluates; returns the number of cells written.

    Raises:
        MechError: there are too few runs of a kind, or the stored lock is not what its hash says.
    """
    from mech_pipeline.pipeline.signals.lock_rows import lock_rows, stored_lock
    from mech_pipeline.signals.locking import lock

    experiment, store, cells = view.whole, view.store, wanted(view)
    if (reason := refused(view)) is not None:
        raise MechError(reason, "see docs/signals.md")
    cell, written = lock_cell(experiment), 0
    if cell not in stored_versions(store, "signal_locks", experiment.experiment):
        explored = cast(store, experiment, scored_runs(experiment, explored=True))
        made = lock(explored.courses, experiment.signals.claim)
        write(store, [Block(cell, lock_rows(made), cells[cell])], CODE_VERSION)
        written = 1
    locked, sha256 = stored_lock(store, experiment.experiment)
    emit(f"signals of {experiment.experiment}: lock {sha256[:12]}, the claim is made for {locked.chosen}")
    columns = _evaluated(store, experiment, locked, sha256)
    for table in ("signal_scores", "signal_alarms"):
        of = Cell(table, experiment.experiment)
        write(store, [Block(of, columns[table], cells[of])], CODE_VERSION)
    return written + 2


def _evaluated(store: Store, experiment: Experiment, locked: Any, sha256: str) -> dict[str, dict[str, list[Any]]]:
    from mech_pipeline.signals.registry import signals
    from mech_pipeline.signals.scoring import evaluate

    unseen = cast(store, experiment, scored_runs(experiment, explored=False))
    scores, alarms = list[dict[str, Any]](), list[dict[str, Any]]()
    arms = {spec.run: spec.arm for spec in experiment.runs()}
    for name in experiment.signals.measure:
        known = {
            "chosen": name == locked.chosen,
            "baseline": signals()[name].baseline,
            "not_formed": unseen.not_formed,
            "formed_anyway": unseen.formed_anyway,
            "lock_sha256": sha256,
        }
        for score in evaluate(locked, name, unseen.courses[name], sha256=sha256):
            scores.append(_score_row(score) | known)
        rule = locked.rules[name]
        for course in unseen.courses[name]:
            peak = course.peak(rule.reading, rule.direction)
            for target, threshold in rule.thresholds.items():
                alarm = course.alarm(rule.reading, rule.direction, threshold)
                row = {"arm": arms[course.run], "seed": course.seed, "run": course.run, "signal": name}
                row |= {"target": target, "event": course.event, "alarm": alarm}
                alarms.append(row | {"peak": peak if np.isfinite(peak) else None})
    return {"signal_scores": _columns(scores), "signal_alarms": _columns(alarms)}


def _score_row(score: Any) -> dict[str, Any]:
    plain = ("signal", "target", "label", "floor", "auroc", "auroc_equal_time", "average_precision", "ranks_p")
    quartiles = {
        f"{name}_{part}": None if values is None else values[place]
        for name, values in (("lead", score.lead), ("lead_share", score.lead_share))
        for place, part in enumerate(("lower", "median", "upper"))
    }
    return {
        **{name: getattr(score, name) for name in (*plain, "abstained_events", "abstained_negatives")},
        **{"negatives": score.false_alarms.of, "false_alarms": score.false_alarms.count},
        **{f"rate_{end}": getattr(score.false_alarms, end) for end in ("lower", "upper", "bound")},
        **{"events": score.coverage.of, "announced": score.coverage.count},
        **{f"coverage_{end}": getattr(score.coverage, end) for end in ("lower", "upper")},
        **quartiles,
    }


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}
