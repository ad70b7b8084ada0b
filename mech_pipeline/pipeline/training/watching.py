"""Ends a run early, by a rule that is written before it trains (`training.stop`).

At every planned checkpoint the mechanism of the first formation event is evaluated while the run trains (some per cent of
training), and the rule looks at all values so far:

    settled: N                    the event has formed, by the same rule as the stage `formation`, N or more updates ago
    hopeless: {at: U, below: b}   at the first planned checkpoint from update U on the event has not formed, and its value is < b

The decision is a pure function of states, so a run that is resumed, or trained again, stops where it stopped. It is a row of
`stops`, and from then on the run's plan ends there: a run that stopped as hopeless is censored at that step in `formation`
(lower: its last evaluation), like one that was trained no further. Values decide who is censored there, so a survival
statistic is fair only if `at` lies beyond what is compared, or if all arms have the same rule.
"""

from dataclasses import dataclass, field

from mech_pipeline.formation.events import formation_step
from mech_pipeline.pipeline.cells import Block, Cell, write
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.pipeline.stops import CODE_VERSION, stop_fingerprint
from mech_pipeline.progress import Emit
from mech_pipeline.spec.analysis import Event
from mech_pipeline.spec.training import Stop
from mech_pipeline.training.update.optimizer import State, Vector


def reason_to_stop(rule: Stop, event: Event, values: dict[int, float]) -> str | None:
    """`settled` or `hopeless` if the rule ends a run at its last evaluation.

    Args:
        values: at planned checkpoints, by rising step.

    >>> event = Event(mechanism="m", threshold=1.0, sustain=1)
    >>> reason_to_stop(Stop(settled=10), event, {0: 0.0, 10: 2.0, 20: 2.0})
    'settled'
    >>> reason_to_stop(Stop(settled=10), event, {0: 0.0, 10: 2.0}) is None
    True
    """
    steps, last = list(values), max(values)
    formed = formation_step(steps, list(values.values()), event.threshold, event.sustain, after=event.after)
    if formed.step is not None:
        return "settled" if rule.settled is not None and last - formed.step >= rule.settled else None
    hopeless = rule.hopeless
    if hopeless is None or not any(step >= hopeless.at for step in steps):
        return None
    decides = min(step for step in steps if step >= hopeless.at)
    return "hopeless" if last == decides and values[last] < hopeless.below else None


@dataclass
class Watch:
    """Looks at a run while it trains.

    Attributes:
        planned: the steps at which it looks, by rising step.
        stop: (step, reason) once it is to end.
    """

    run: OpenRun
    rule: Stop
    event: Event
    planned: tuple[int, ...]
    values: dict[int, float] = field(default_factory=dict)
    stop: tuple[int, str] | None = None

    @classmethod
    def of(cls, run: OpenRun) -> "Watch | None":
        """None where the run has no rule."""
        rule = run.spec.training.stop
        return None if rule is None else cls(run, rule, run.spec.formation[0], run.spec.checkpoint_steps())

    def over(self, until: int) -> bool:
        """Whether kept states up to a step say that the run has ended; nothing is concluded from behind a gap."""
        for step in self.planned:
            if self.stop is not None or step > until or (step not in self.values and step not in self.run.checkpoints):
                break
            if step not in self.values:
                self._looks(step, self.run.weights(step))
        return self.stop is not None

    def sees(self, state: State) -> None:
        """Looks at a state that was just reached, where it is a planned one that was not looked at before."""
        if self.stop is None and state.step in self.planned and state.step not in self.values:
            self._looks(state.step, state.theta)

    def _looks(self, step: int, theta: Vector) -> None:
        assert self.event.mechanism is not None, "checked when the file was read"
        self.values[step] = self.run.values_at(theta, [self.event.mechanism])[self.event.mechanism]
        reason = reason_to_stop(self.rule, self.event, dict(sorted(self.values.items())))
        if reason is not None and 0 < step < self.run.spec.training.steps:
            self.stop = step, reason

    def write(self, emit: Emit) -> None:
        """The row that ends the run's plan; what is kept is published before."""
        assert self.stop is not None, "asked for only if it stopped"
        (step, reason), made_from = self.stop, stop_fingerprint(self.run.store, self.run.spec)
        assert made_from is not None, "the run has a rule and tokens"
        columns = {"step": [step], "reason": [reason], "value": [self.values[step]]}
        write(self.run.store, [Block(Cell("stops", self.run.spec.run), columns, made_from)], CODE_VERSION)
        emit(f"train {self.run.spec.run}: stopped at {step} of {self.run.spec.training.steps}, {reason}")
