"""Choices of an experiment file against the rest of it: every mistake is named before anything is trained."""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from mech_pipeline.errors import did_you_mean
from mech_pipeline.spec.analysis import Influence, Ledger
from mech_pipeline.spec.arm import Arm
from mech_pipeline.spec.choice import ACCOUNTS, Choice, Recipe
from mech_pipeline.spec.data import Data
from mech_pipeline.spec.run import run_id
from mech_pipeline.spec.training import Checkpoints, Training

SAME_DATA = ("corpus", "tokenizer", "data")
"""What an arm that chooses shares with the arm that it chooses by, so that examples are the same."""

_MATCHED = ("of", "at", "pooled", "kinds", "do", "weight", "until", "earlier", "to", "window", "outside")
"""What `like` takes from the choice that it matches, where it does not say so itself."""


@runtime_checkable
class Surroundings(Protocol):
    """What of an experiment its arms' choices depend on."""

    @property
    def experiment(self) -> str: ...
    @property
    def arms(self) -> Mapping[str, Arm]: ...
    @property
    def seeds(self) -> tuple[int, ...]: ...
    @property
    def influence(self) -> Influence: ...
    @property
    def ledger(self) -> Ledger: ...
    @property
    def data(self) -> Data: ...
    @property
    def training(self) -> Training: ...
    @property
    def checkpoints(self) -> Checkpoints: ...


def check_choices(experiment: Surroundings) -> None:
    """Looks at the choice of every arm.

    Raises:
        ValueError: what is wrong, with the arm and the field.
    """
    for name, arm in experiment.arms.items():
        if arm.choose is not None:
            try:
                _check(experiment, name, arm, arm.choose)
            except ValueError as error:
                raise ValueError(f"arms.{name}.choose: {error}") from error


def recipe_of(experiment: Surroundings, arm: str, seed: int) -> Recipe | None:
    """What a run of an arm chooses; none if it chooses nothing."""
    choice = experiment.arms[arm].choose
    if choice is None:
        return None
    matched = recipe_of(experiment, choice.like, seed) if choice.like is not None else None
    if matched is not None:
        said = {name: getattr(matched, name) for name in _MATCHED if name not in choice.model_fields_set}
        choice = choice.model_copy(update=said)
    seeds = _seeds(experiment, choice.of) if choice.pooled else (seed,)
    mechanisms = {"influence": experiment.influence.mechanisms, "ledger": experiment.ledger.mechanisms}
    filled = choice.model_dump()
    if choice.by in ACCOUNTS and choice.mechanism is None:
        filled["mechanism"] = mechanisms[choice.by][0]
    return Recipe(
        **filled, matched=matched, runs=tuple(run_id(experiment.experiment, choice.of, each) for each in seeds)
    )


def _seeds(experiment: Surroundings, arm: str) -> tuple[int, ...]:
    own = experiment.arms[arm].seeds
    return experiment.seeds if own is None else own


def _check(experiment: Surroundings, name: str, arm: Arm, choice: Choice) -> None:
    for field, other in (("of", choice.of), ("like", choice.like)):
        if other is not None and other not in experiment.arms:
            allowed = ", ".join(experiment.arms)
            raise ValueError(
                f"{field}: unknown arm {other!r}; {did_you_mean(other, experiment.arms)}allowed: {allowed}"
            )
    _check_order(experiment.arms, name)
    if choice.like is not None and experiment.arms[choice.like].choose is None:
        raise ValueError(f"like: arm {choice.like} chooses no examples that could be matched")
    for field in SAME_DATA:
        if getattr(arm, field) != getattr(experiment.arms[choice.of], field):
            raise ValueError(f"the arm changes {field}, and arm {choice.of} has other examples then")
    if {**experiment.data.model_dump(), **arm.data}.get("weights") is not None:
        raise ValueError("`data.weights` weighs examples already; use one of the two")
    if not choice.pooled and (lost := set(_seeds(experiment, name)) - set(_seeds(experiment, choice.of))):
        raise ValueError(f"arm {choice.of} trains no seed {min(lost)}; give it that seed, or set `pooled: true`")
    _check_account(experiment, name, choice)
    _check_steps(experiment, arm, choice)


def _check_order(arms: Mapping[str, Arm], name: str) -> None:
    """An arm must not wait for itself, by whatever way."""
    fresh, seen = {name}, set[str]()
    while fresh:
        chosen = [arms[each].choose for each in fresh if each in arms]
        fresh = {other for each in chosen if each is not None for other in (each.of, each.like) if other is not None}
        if name in fresh:
            raise ValueError(f"arm {name} waits for itself")
        fresh -= seen
        seen |= fresh


def _check_account(experiment: Surroundings, name: str, choice: Choice) -> None:
    """What it goes by must be asked for, of every run it goes by."""
    if choice.by not in ACCOUNTS:
        return
    account = experiment.influence if choice.by == "influence" else experiment.ledger
    needed = _seeds(experiment, choice.of if choice.pooled else name)
    if without := [seed for seed in needed if not account.covers(choice.of, seed)]:
        raise ValueError(
            f"by: no {choice.by} of arm {choice.of}, seed {without[0]}, is asked for; "
            f"set `{choice.by}: {{mechanisms: […], arms: [{choice.of}], seeds: all}}`"
        )
    if choice.mechanism is not None and choice.mechanism not in account.mechanisms:
        meant = did_you_mean(choice.mechanism, account.mechanisms)
        raise ValueError(
            f"mechanism: {choice.by} has none {choice.mechanism!r}; {meant}{', '.join(account.mechanisms)}"
        )
    if choice.by == "influence" and choice.method not in experiment.influence.methods:
        allowed = ", ".join(experiment.influence.methods)
        raise ValueError(f"method: influence.methods lacks {choice.method!r}; it has {allowed}")


def _check_steps(experiment: Surroundings, arm: Arm, choice: Choice) -> None:
    training, data = (getattr(experiment, field).model_dump() | getattr(arm, field) for field in ("training", "data"))
    for field, step in (("at", choice.at), ("until", choice.until), ("window", choice.window)):
        last = step[0] if isinstance(step, tuple) else step
        if isinstance(last, int) and last > training["steps"]:
            raise ValueError(f"{field}: {last} is after the last of {training['steps']} updates")
    if choice.count is not None and choice.count >= data["examples"]:
        raise ValueError(f"count: {choice.count} of a pool of {data['examples']} examples leaves nothing to train on")
    _check_count(experiment.arms, choice, data["examples"])
    planned = experiment.checkpoints.possible(training["steps"])
    if isinstance(choice.at, int) and choice.at not in planned:
        raise ValueError(f"at: arm {choice.of} keeps no state at step {choice.at}; add it with checkpoints.extra")


def _check_count(arms: Mapping[str, Arm], choice: Choice, pool: int) -> None:
    """Candidates are part of the pool: what even that has not is known before anything is trained."""
    asked = choice
    while asked.like is not None and (matched := arms[asked.like].choose) is not None:
        asked = matched
    wanted = asked.count if asked.count is not None else round((asked.share or 0.0) * pool)
    if wanted < 1:
        raise ValueError(f"share: {asked.share} of at most {pool} examples is none")
    others = wanted * ((choice.like is not None) + (choice.do == "replace"))
    if wanted + others > pool:
        raise ValueError(f"{wanted} examples and as many like them are more than the pool of {pool}; choose fewer")
