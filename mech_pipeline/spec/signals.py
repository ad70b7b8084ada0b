"""Which signals every checkpoint is measured on, and with which runs they are scored: events, negatives, explored seeds.

A claim about the rate of false alarms needs negative runs that nobody has looked at; whether there are enough is told when
the file is read, before anything is trained.
"""

import math
from collections.abc import Collection, Mapping
from typing import Literal

from pydantic import Field, StrictInt, model_validator

from mech_pipeline.errors import did_you_mean
from mech_pipeline.spec.analysis import Selection
from mech_pipeline.spec.stage import Stage, added

CONFIDENCE = 0.95


class OnAlarm(Stage):
    """What is done when the locked alarm rings in a run that is being trained, beside the warning."""

    zoom: int = Field(
        0, ge=0, description="keep the states before the alarm too, so many updates apart: 1 is every state; 0: none"
    )
    hold: bool = Field(False, description="train the run no further until somebody releases it")

    @property
    def asks(self) -> bool:
        """Whether anything is to be done."""
        return self.hold or self.zoom > 0


class Signals(Selection):
    """Numbers of checkpoints that know no mechanism; with `events` and `negatives` they are scored as precursors."""

    arms: tuple[str, ...] | Literal["all"] = Field("all", description="arms, or the word all")
    seeds: tuple[StrictInt, ...] | Literal["all"] = Field("all", description="seeds, or the word all")
    measure: tuple[str, ...] = Field((), description="names of signals (signals/library)")
    event: str | None = Field(None, description="the formation event that is to be announced; default: the first")
    events: tuple[str, ...] = Field((), description="arms in which it happens")
    negatives: tuple[str, ...] = Field((), description="arms in which it cannot")
    explore_seeds: tuple[int, ...] = Field((), description="seeds that may be looked at; the others are evaluated once")
    claim: float = Field(
        0.05, gt=0, lt=1, description="rate of false alarms, per run, that the chosen signal is to stay below"
    )

    on_alarm: OnAlarm = added(OnAlarm(), "what is done to a run in which the locked alarm rings while it trains")

    @property
    def asks(self) -> bool:
        """Whether a signal is named."""
        return bool(self.measure)

    @property
    def scored(self) -> bool:
        """Whether signals are scored, and not only measured."""
        return bool(self.events or self.negatives)

    @model_validator(mode="after")
    def _complete(self) -> "Signals":
        if not self.scored and self.on_alarm.asks:
            raise ValueError(
                "on_alarm needs an alarm: name events, negatives and explore_seeds, by which one is locked"
            )
        if not self.scored:
            return self
        for field, found in (
            ("measure", self.measure),
            ("events", self.events),
            ("negatives", self.negatives),
            ("explore_seeds", self.explore_seeds),
        ):
            if not found:
                raise ValueError(f"{field} is empty; scoring needs signals, events, negatives and seeds to explore")
        if both := set(self.events) & set(self.negatives):
            raise ValueError(f"arm {min(both)} is among events and among negatives")
        return self

    def check(self, seeds: Mapping[str, Collection[int]], events: Collection[str]) -> None:
        """Whether the runs that there will be can show what is claimed.

        Args:
            seeds: of each arm.
            events: names of the formation events.

        Raises:
            ValueError: an unknown arm or event, an arm whose signals are not measured, or too few runs; it says how many
                are needed.
        """
        if not self.scored:
            return
        if self.event is not None and self.event not in events:
            raise ValueError(f"event: {did_you_mean(self.event, events)}allowed: {', '.join(events)}")
        for arm in (*self.events, *self.negatives):
            if arm not in seeds:
                raise ValueError(f"unknown arm {arm!r}; {did_you_mean(arm, seeds)}allowed: {', '.join(seeds)}")
            if unmeasured := [seed for seed in seeds[arm] if not self.covers(arm, seed)]:
                raise ValueError(f"arm {arm} is scored, and of its seed {unmeasured[0]} no signal is measured")
        explored = set(self.explore_seeds)
        for what, arms in (("event", self.events), ("negative", self.negatives)):
            if not any(explored & set(seeds[arm]) for arm in arms):
                raise ValueError(f"explore_seeds: no {what} run has one of them, so nothing can be explored")
            if not any(set(seeds[arm]) - explored for arm in arms):
                raise ValueError(f"explore_seeds: they are all seeds of the {what} arms, so no run is left to evaluate")
        unseen = sum(len(set(seeds[arm]) - explored) for arm in self.negatives)
        if unseen < (needed := negatives_needed(self.claim)):
            raise ValueError(
                f"claim: a rate of false alarms below {self.claim:g} needs {needed} negative runs that are not explored, even "
                f"without a single alarm; there are {unseen}: add seeds or arms, or claim less"
            )


def negatives_needed(claim: float) -> int:
    """The fewest negative runs, none of which alarms, that show a rate of false alarms below `claim` (one-sided, 95 %).

    >>> negatives_needed(0.10), negatives_needed(0.05), negatives_needed(0.01)
    (29, 59, 299)
    """
    return math.ceil(math.log(1 - CONFIDENCE) / math.log1p(-claim) - 1e-9)
