"""Runs whose training is held where the locked alarm rang (`signals.on_alarm`), until somebody releases them: table `holds`.

While a run is held its plan ends there, as that of a stopped run does. A hold belongs to one training: where the run would be
trained otherwise now, it is no hold of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mech_pipeline.errors import MechError
from mech_pipeline.pipeline.cells import Block, Cell, write
from mech_pipeline.pipeline.checkpoints import training_fingerprint
from mech_pipeline.pipeline.look import among, answer_of
from mech_pipeline.spec.fingerprint import fingerprint
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.store.store import Store

CODE_VERSION = "1"


@dataclass(frozen=True)
class Hold:
    """That training was held.

    Attributes:
        step: the last state before the hold.
        signal: whose alarm rang there.
        released: whether it goes on.
    """

    run: str
    step: int
    signal: str
    released: bool

    @property
    def words(self) -> str:
        """What it means, and what to do about it."""
        if self.released:
            return f"released after the alarm of {self.signal} at step {self.step:,}"
        return (
            f"held at step {self.step:,} by the alarm of {self.signal} (`mech run FILE --release {self.run}` goes on)"
        )


def hold_of(store: Store, spec: RunSpec) -> Hold | None:
    """The hold of the run's training as it is described now, released or not; none: its alarm has not rung in training."""
    if not spec.on_alarm.hold:
        return None
    found = answer_of(store, "holds", spec.run, lambda runs: _read_holds(store, runs))
    return found[0] if found is not None and found[1] == _made_from(store, spec) else None


def held_at(store: Store, spec: RunSpec) -> int | None:
    """The state that a run is held at; none: it is not."""
    hold = hold_of(store, spec)
    return None if hold is None or hold.released else hold.step


def write_hold(store: Store, spec: RunSpec, hold: Hold) -> None:
    """Holds a run, or changes its hold."""
    made_from = _made_from(store, spec)
    assert made_from is not None, "a run that trains has tokens"
    columns = {"step": [hold.step], "signal": [hold.signal], "released": [hold.released]}
    write(store, [Block(Cell("holds", spec.run), columns, made_from)], CODE_VERSION)


def release(store: Store, spec: RunSpec) -> Hold:
    """Lets a held run train on, to its end; returns what held it.

    Raises:
        MechError: it is not held.
    """
    hold = hold_of(store, spec)
    if hold is None or hold.released:
        state = "was never held" if hold is None else f"was {hold.words}"
        raise MechError(f"run {spec.run} is not held: it {state}", "`mech status FILE` says which runs are")
    write_hold(store, spec, Hold(hold.run, hold.step, hold.signal, released=True))
    return hold


def _made_from(store: Store, spec: RunSpec) -> str | None:
    training = training_fingerprint(store, spec)
    return None if training is None else fingerprint("hold", CODE_VERSION, training)


def _read_holds(store: Store, runs: Sequence[str]) -> dict[str, tuple[Hold, str] | None]:
    with store.reading("holds", of=runs) as connection:
        rows = connection.execute(
            f"select run, step, signal, released, input_fingerprint from holds where {among('run', runs)}", list(runs)
        ).fetchall()
    found: dict[str, tuple[Hold, str] | None] = dict.fromkeys(runs)
    return found | {
        run: (Hold(run, step, signal, released), made_from) for run, step, signal, released, made_from in rows
    }
