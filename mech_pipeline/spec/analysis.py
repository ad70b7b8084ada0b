"""What is asked of a trained run: formation events, ledger, influence."""

from typing import Literal

from pydantic import Field, model_validator

from mech_pipeline.spec.stage import Stage


class Event(Stage):
    """A formation event: a value crosses a threshold and stays across it."""

    mechanism: str | None = Field(None, description="name of a mechanism")
    detector: str | None = Field(None, description="name of a head detector; the best head counts")
    threshold: float = Field(description="absolute, in the unit of the value")
    sustain: int = Field(3, ge=1, description="consecutive evaluations at or above the threshold")

    @model_validator(mode="after")
    def _one_signal(self) -> "Event":
        if (self.mechanism is None) == (self.detector is None):
            raise ValueError("a formation event watches exactly one of `mechanism` or `detector`")
        return self

    @property
    def signal(self) -> str:
        """The name under which the event is stored: the mechanism, or `best_head:<detector>`."""
        return self.mechanism if self.mechanism is not None else f"best_head:{self.detector}"


class Attribution(Stage):
    """Which runs and mechanisms get a ledger or an influence sweep."""

    mechanisms: tuple[str, ...] = Field((), description="names of mechanisms")
    arms: tuple[str, ...] | Literal["all"] = Field(("baseline",), description="arms, or the word all")
    seeds: tuple[int, ...] | Literal["all"] = Field((0,), description="seeds, or the word all")

    def covers(self, arm: str, seed: int) -> bool:
        """Whether a run is selected."""
        return (
            bool(self.mechanisms)
            and (self.arms == "all" or arm in self.arms)
            and (self.seeds == "all" or seed in self.seeds)
        )


class Influence(Attribution):
    """Influence is computed at the formation step of the first formation event."""

    metasmoothness_steps: int = Field(
        200, ge=0, description="updates before the target that are retrained, perturbed; 0: off"
    )
    metasmoothness_size: float = Field(0.05, gt=0, lt=1, description="size h of the perturbation of example weights")
