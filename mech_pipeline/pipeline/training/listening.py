"""Listens for the alarm that a run's experiment has locked while the run trains (`signals.on_alarm`).

At every planned checkpoint the chosen signal is computed from the state that was just reached, by the code that the stage
`signals` has and from the same numbers, so that what rings here rings there. When it rings:

    zoom: E    the states since the planned checkpoint before are kept too, every E updates (table `zooms`); they are replayed
               from there once training has come to its end, or to the hold
    hold       the run makes no further update (table `holds`) until it is released

Only a state that training has just reached is acted on. What rang before the lock was there, or before a release, is past.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Int
from torch import Tensor

from mech_pipeline.pipeline.grid import request_zoom
from mech_pipeline.pipeline.holds import Hold, hold_of, write_hold
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.pipeline.signals.alert import Alert, locked_alarm
from mech_pipeline.pipeline.signals.values import sample_of
from mech_pipeline.progress import Emit
from mech_pipeline.signals.moment import Moment
from mech_pipeline.signals.registry import signals
from mech_pipeline.training.update.optimizer import State, Vector


@dataclass
class Listening:
    """The locked alarm, with an ear on a run that trains.

    Attributes:
        planned: the steps at which it listens, by rising step.
        newest: the last planned state that was kept before; alarms before it are past.
        values: of the signal, by planned step.
        stop: (step, why) once the run is to be held.
        zoomed: whether more states are to be kept now.
    """

    run: OpenRun
    alarm: Alert
    sample: Int[Tensor, "example token"]
    planned: tuple[int, ...]
    newest: int
    emit: Emit
    values: dict[int, float] = field(default_factory=dict)
    stop: tuple[int, str] | None = None
    zoomed: bool = False
    _rang: bool = False
    _latest: tuple[int, Vector] | None = None

    @classmethod
    def of(cls, run: OpenRun, emit: Emit) -> "Listening | None":
        """None where nothing is to be done on an alarm, nothing is locked, or the run was held before."""
        if not run.spec.on_alarm.asks or hold_of(run.store, run.spec) is not None:
            return None
        alarm = locked_alarm(run.store, run.spec)
        if alarm is None:
            return None
        planned = run.spec.checkpoint_steps()
        newest = max({*planned} & {*run.checkpoints}, default=-1)
        return cls(run, alarm, sample_of(run), planned, newest, emit)

    def over(self, until: int) -> bool:
        """Whether kept states up to a step say that the run is to be held; nothing is concluded from behind a gap."""
        for step in self.planned:
            if self._rang or step > until or (step not in self.values and step not in self.run.checkpoints):
                break
            if step not in self.values:
                self._hears(self.run.state(step))
        return self.stop is not None

    def sees(self, state: State) -> None:
        """Listens at a state that was just reached, where it is a planned one that was not listened at before."""
        if not self._rang and state.step in self.planned and state.step not in self.values:
            self._hears(state)

    def write(self, emit: Emit) -> None:
        """The row that holds the run; what is kept is published before."""
        assert self.stop is not None, "asked for only if it rang"
        hold = Hold(self.run.spec.run, self.stop[0], self.alarm.rule.signal, released=False)
        write_hold(self.run.store, self.run.spec, hold)
        emit(f"train {self.run.spec.run}: {hold.words}")

    def _hears(self, state: State) -> None:
        self.values[state.step] = self._value(state)
        self._latest = state.step, state.theta.clone()
        alarm = self.alarm.over(dict(sorted(self.values.items())))
        self._rang = alarm.step is not None
        if alarm.step is not None and alarm.step >= self.newest:
            self._acts(alarm, alarm.step)

    def _acts(self, alarm: Alert, step: int) -> None:
        wishes = self.run.spec.on_alarm
        self.emit(alarm.words)
        earlier = [each for each in self.values if each < step]
        if wishes.zoom and earlier:
            request_zoom(self.run.store, self.run.spec, max(earlier), step, wishes.zoom)
            self.zoomed = True
        if wishes.hold and 0 < step < self.run.spec.training.steps:
            self.stop = step, alarm.words

    def _value(self, state: State) -> float:
        """The signal at a state, as the stage `signals` computes it of the kept one."""
        flat, theta = self.run.trainer.flat, state.theta.clone()
        with torch.enable_grad():
            flat.load(theta)
            moments = state.v if state.step > 0 else None
            at = Moment(
                state.step, flat, theta, self._before(state.step), moments, self.sample, self.run.components.index
            )
            return signals()[self.alarm.rule.signal].compute(at)

    def _before(self, step: int) -> Vector | None:
        """Weights of the planned checkpoint before."""
        earlier = [each for each in self.planned if each < step]
        if not earlier:
            return None
        if self._latest is not None and self._latest[0] == earlier[-1]:
            return self._latest[1]
        return self.run.weights(earlier[-1]).clone()
