"""An arm: one condition of an experiment."""

from typing import Any

from pydantic import Field, field_validator

from mech_pipeline.spec.choice import Choice
from mech_pipeline.spec.intervention import Intervention
from mech_pipeline.spec.stage import Stage, added


def checked_seeds(seeds: tuple[int, ...]) -> tuple[int, ...]:
    """Seeds that a run can have each once.

    Raises:
        ValueError: none, twice the same, or a negative one.
    """
    if not seeds or len(set(seeds)) != len(seeds) or any(seed < 0 for seed in seeds):
        raise ValueError(f"seeds must be one or more distinct numbers, none negative, got {list(seeds)}")
    return seeds


class Arm(Stage):
    """One condition of the experiment: overrides per stage, and optionally its own seeds."""

    seeds: tuple[int, ...] | None = Field(None, description="default: the experiment's seeds")
    corpus: dict[str, Any] = {}
    tokenizer: dict[str, Any] = {}
    data: dict[str, Any] = {}
    model: dict[str, Any] = {}
    optimizer: dict[str, Any] = {}
    training: dict[str, Any] = {}
    checkpoints: dict[str, Any] = {}
    choose: Choice | None = added(None, "examples that are treated otherwise, by what was measured of another arm")
    intervene: tuple[Intervention, ...] = added((), "heads and neurons that are held while the model trains")

    @field_validator("seeds")
    @classmethod
    def _distinct_seeds(cls, seeds: tuple[int, ...] | None) -> tuple[int, ...] | None:
        return None if seeds is None else checked_seeds(seeds)
