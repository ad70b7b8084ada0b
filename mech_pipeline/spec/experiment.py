"""An experiment: one YAML file, expanded into runs (arms × seeds).

An arm overrides stages of the experiment, key by key: `control: {data: {plain: 1.0, tiled: 0.0}}`.
Mistakes in the file are found here and named: field, value, what is allowed. Neither disk nor network is touched: what
names stand for (mechanisms, detectors, files) is looked up by `mech_pipeline/resolve.py`, before anything is computed.
"""

import re
import reprlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator, model_validator

from mech_pipeline.errors import MechError, did_you_mean
from mech_pipeline.spec.analysis import (
    HELD_OUT,
    WEIGHTS,
    Circuits,
    Discovery,
    Event,
    Influence,
    InTraining,
    Ledger,
    Neurons,
    Readouts,
    Resolution,
)
from mech_pipeline.spec.arm import Arm, checked_seeds
from mech_pipeline.spec.budget import Budget
from mech_pipeline.spec.choosing import check_choices, recipe_of
from mech_pipeline.spec.data import Corpus, Data, Probe, Tokenizer
from mech_pipeline.spec.imported import Imported
from mech_pipeline.spec.model import Model
from mech_pipeline.spec.plain_yaml import read_yaml
from mech_pipeline.spec.run import RunSpec, check_run_id, run_id
from mech_pipeline.spec.signals import OnAlarm, Signals
from mech_pipeline.spec.stage import Stage, added
from mech_pipeline.spec.training import Checkpoints, Optimizer, Training

_END = 400
"""Characters of a message that are kept at each end of it."""
OVERRIDABLE = ("corpus", "tokenizer", "data", "model", "optimizer", "training", "checkpoints")
Names = Mapping[str, Collection[str]]
"""The mechanisms and detectors that there are, for a check that is to name a misspelt one."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


class Experiment(Stage):
    """Everything in one YAML file."""

    experiment: str = Field(description="name; run ids start with it")
    question: str = Field("", description="what the experiment asks, shown in the report")
    corpus: Corpus
    tokenizer: Tokenizer = Tokenizer()
    data: Data = Data()
    model: Model = Model()
    optimizer: Optimizer = Optimizer()
    training: Training = Training()
    checkpoints: Checkpoints = Checkpoints()
    probe: Probe = Probe()
    mechanisms: tuple[str, ...] = Field(min_length=1, description="evaluated at every checkpoint")
    detectors: tuple[str, ...] = Field((), description="per-head scores at every checkpoint")
    held_out_loss: bool = Field(
        True,
        description=f"every checkpoint also has its loss on held-out text: mechanism `{HELD_OUT}`, which is minus the loss",
    )
    gradients: tuple[str, ...] = Field((), description="mechanisms whose gradient tensors are kept")
    formation: tuple[Event, ...] = Field(min_length=1, description="the first event names the influence's target step")
    ledger: Ledger = Ledger()
    influence: Influence = Influence()
    in_training: InTraining = InTraining()
    circuits: Circuits = Circuits()
    neurons: Neurons = Neurons()
    discovery: Discovery = added(Discovery(), "what formed that nobody named")
    readouts: Readouts = added(Readouts(), "which tokens the movements of neurons and heads promote and suppress")
    example_losses: bool = added(
        False, "table `example_losses`: the loss of every example at every update that sees it; replays each run once"
    )
    imported: Imported | None = added(None, "take the states of all runs from outside instead of training them")
    signals: Signals = added(Signals(), "numbers of checkpoints that know no mechanism, and how they are scored")
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    budget: Budget = added(Budget(), "what it may cost at most")
    arms: dict[str, Arm] = Field(default_factory=lambda: {"baseline": Arm()}, min_length=1)

    @field_validator("experiment")
    @classmethod
    def _speakable(cls, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} must be letters, digits, - and _ (it starts every run id)")
        return name

    @field_validator("seeds")
    @classmethod
    def _distinct_seeds(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        return checked_seeds(seeds)

    @model_validator(mode="after")
    def _consistent(self, info: Any) -> "Experiment":
        looked_up: Names = info.context or {}  # `info` is a ValidationInfo, a protocol that no runtime check can see
        for field, names, known in (
            ("mechanisms", self.mechanisms, looked_up.get("mechanisms", self.mechanisms)),
            ("detectors", self.detectors, looked_up.get("detectors", self.detectors)),
            ("gradients", self.gradients, self.mechanisms),
            ("ledger.mechanisms", self.ledger.mechanisms, self.mechanisms),
            ("influence.mechanisms", self.influence.mechanisms, self.mechanisms),
            ("in_training.mechanisms", self.in_training.mechanisms, self.mechanisms),
            ("circuits.mechanisms", self.circuits.mechanisms, self.mechanisms),
            ("formation.mechanism", [e.mechanism for e in self.formation if e.mechanism], self.mechanisms),
            ("formation.detector", [e.detector for e in self.formation if e.detector], self.detectors),
        ):
            for name in names:
                if name not in known:
                    allowed = f"{did_you_mean(name, known)}allowed: {', '.join(sorted(known)) or 'none'}"
                    raise ValueError(f"{field}: unknown name {name!r}; {allowed}")
        if WEIGHTS in self.mechanisms:
            raise ValueError(
                f"mechanisms: {WEIGHTS!r} is the name of the ledger's account of the weights; name it otherwise"
            )
        signals = [event.signal for event in self.formation]
        if twice := {signal for signal in signals if signals.count(signal) > 1}:
            raise ValueError(f"formation: {min(twice)} is watched twice; one threshold per value")
        for field, chosen in (
            ("ledger", self.ledger),
            ("influence", self.influence),
            ("in_training", self.in_training),
            ("circuits", self.circuits),
            ("neurons", self.neurons),
            ("signals", self.signals),
            ("discovery", self.discovery),
            ("readouts", self.readouts),
        ):
            if not chosen.asks:
                continue
            if chosen.arms != "all" and (unknown := set(chosen.arms) - set(self.arms)):
                arm = min(unknown)
                allowed = f"{did_you_mean(arm, self.arms)}allowed: {', '.join(self.arms)} or all"
                raise ValueError(f"{field}.arms: unknown arm {arm!r}; {allowed}")
            trained = {
                seed for arm in self.arms if chosen.arms == "all" or arm in chosen.arms for seed in self.seeds_of(arm)
            }
            if chosen.seeds != "all" and (missing := set(chosen.seeds) - trained):
                raise ValueError(
                    f"{field}.seeds: seed {min(missing)} is not trained; allowed: {sorted(trained)} or all"
                )
        seeds = {name: self.seeds_of(name) for name in self.arms}
        try:
            self.signals.check(seeds, signals)
        except ValueError as error:
            raise ValueError(f"signals.{error}") from error
        check_choices(self)
        self.budget.check_runs(sum(map(len, seeds.values())))
        return self

    def seeds_of(self, arm: str) -> tuple[int, ...]:
        """The seeds that an arm trains."""
        own = self.arms[arm].seeds
        return self.seeds if own is None else own

    def runs(self) -> tuple[RunSpec, ...]:
        """Every run of every arm, in the order of the file; what files hold is filled in by `resolve`."""
        return tuple(self._run(arm, seed) for arm in self.arms for seed in self.seeds_of(arm))

    def _run(self, arm: str, seed: int) -> RunSpec:
        stages: dict[str, Any] = {}
        for name in OVERRIDABLE:
            changes = getattr(self.arms[arm], name)
            before = getattr(self, name)
            if "preset" in changes:  # stands for a whole model: it replaces, and does not change, the experiment's
                stages[name] = changes
            else:
                stages[name] = before.changed(changes) if name == "model" else before.model_dump() | changes
        spec = RunSpec(
            run=check_run_id(run_id(self.experiment, arm, seed)),
            experiment=self.experiment,
            arm=arm,
            seed=seed,
            probe=self.probe,
            mechanisms=self.mechanisms,
            held_out_loss=self.held_out_loss,
            example_losses=self.example_losses,
            detectors=self.detectors,
            gradients=self.gradients,
            formation=self.formation,
            ledger=self.ledger.mechanisms if self.ledger.covers(arm, seed) else (),
            ledger_by=self.ledger.resolution() if self.ledger.covers(arm, seed) else Resolution(),
            influence=self.influence.model_copy(update={} if self.influence.covers(arm, seed) else {"mechanisms": ()}),
            in_training=self.in_training if self.in_training.covers(arm, seed) else InTraining(),
            neurons=self.neurons if self.neurons.covers(arm, seed) else Neurons(),
            circuits=self.circuits if self.circuits.covers(arm, seed) else Circuits(),
            imported=None if self.imported is None else self.imported.of(arm, seed),
            readouts=self.readouts if self.readouts.covers(arm, seed) else Readouts(),
            discovery=self.discovery if self.discovery.covers(arm, seed) else Discovery(),
            choice=recipe_of(self, arm, seed),
            signals=self.signals.measure if self.signals.covers(arm, seed) else (),
            on_alarm=self.signals.on_alarm if self.signals.covers(arm, seed) else OnAlarm(),
            interventions=self.arms[arm].intervene,
            **stages,
        )
        return spec.model_copy(
            update={
                "optimizer": spec.optimizer.until(spec.training.steps) if _ends_here(spec) else spec.optimizer,
                "tokenizer": spec.tokenizer.ending_documents(packed=spec.data.packed > 0),
            }
        )


def load_experiment(path: Path, names: Names | None = None) -> Experiment:
    """Reads and checks an experiment file.

    Args:
        names: the `mechanisms` and `detectors` that there are; none: they are looked up later, by `resolve`.

    Raises:
        MechError: the file is missing, is not YAML, or holds an unknown or contradictory field.
    """
    if not path.is_file():
        there = sorted(str(p) for p in path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
        meant = did_you_mean(path.name, [Path(each).name for each in there])
        raise MechError(
            f"experiment file {path} does not exist",
            f"{meant}there is {', '.join(there)}" if there else "name a YAML file",
        )
    return parse_experiment(read_yaml(path), source=str(path), names=names)


def parse_experiment(content: Any, source: str = "experiment", names: Names | None = None) -> Experiment:
    """Checks an experiment given as plain data, arms included; see `load_experiment`."""
    if not isinstance(content, dict):
        raise MechError(
            f"{source} must be a mapping of fields, got {type(content).__name__}", "start with `experiment: NAME`"
        )
    try:
        experiment = Experiment.model_validate(content, context=names)
        experiment.runs()
    except ValidationError as error:
        raise MechError(f"{source}: {_explain(error)}", "fix that field and run again") from error
    return experiment


def _explain(error: ValidationError) -> str:
    """The first mistake, in words: field, value, what is allowed."""
    # A misspelt key usually causes a "missing" as well: name the misspelling.
    first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    path = ".".join(str(part) for part in first["loc"]) or "experiment"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        allowed = sorted(_fields_at(first["loc"][:-1], error.title))
        hint = did_you_mean(str(first["loc"][-1]), allowed)
        return (
            f"unknown field {path!r} (value {reprlib.repr(first['input'])}); {hint}allowed: {', '.join(allowed)}{more}"
        )
    if first["type"] == "missing":
        return f"field {path!r} is missing{more}"
    message = first["msg"].removeprefix("Value error, ")
    value = first["input"]
    shown = f" = {reprlib.repr(value)}" if isinstance(value, str | int | float | bool | list | tuple) else ""
    return f"{path}{shown}: {_cut(message)}{more}"


def _cut(message: str) -> str:
    """A long message without its middle: it repeats a value of the file that goes on and on."""
    return message if len(message) <= 2 * _END else f"{message[:_END]} … {message[-_END:]}"


def _fields_at(path: tuple[int | str, ...], title: str) -> set[str]:
    """The fields allowed at a place in the file (union members of several models are merged)."""
    models: list[type[Stage]] = [RunSpec if title == "RunSpec" else Experiment]
    for part in path:
        if isinstance(part, int) or not any(part in model.model_fields for model in models):
            continue  # a place in a list, or the free name of an arm
        models = [model for parent in models for model in _stages_in(parent.model_fields.get(part))]
    return {field.alias or name for model in models for name, field in model.model_fields.items()}


def _stages_in(field: Any) -> list[type[Stage]]:
    """All stage models inside a field's annotation, however it is wrapped."""
    if field is None:
        return []
    found: list[type[Stage]] = []
    pending = [field.annotation]
    while pending:
        annotation = pending.pop()
        if isinstance(annotation, type) and issubclass(annotation, Stage):
            found.append(annotation)
        else:
            pending.extend(getattr(annotation, "__args__", ()))
    return found


def _ends_here(spec: RunSpec) -> bool:
    """Whether a schedule without a horizon ends with `training.steps`; of an imported run that is replayed, nobody knows."""
    return spec.imported is None or spec.imported.batches is None
