"""What is done to the model itself while it trains: a head or a neuron is held in a window of updates.

The forward pass of these updates is another one, and so are their gradients; evaluation is always of the model as it is.
"""

from collections.abc import Sequence
from typing import Literal

from pydantic import ConfigDict, Field, model_validator

from mech_pipeline.spec.model import Model
from mech_pipeline.spec.stage import Stage


class Intervention(Stage):
    """One part of the model in one window of updates."""

    model_config = ConfigDict(populate_by_name=True)

    head: tuple[int, int] | None = Field(None, description="[layer, head], both from 0")
    neuron: tuple[int, int] | None = Field(None, description="[layer, neuron of its MLP], both from 0")
    do: Literal["forbid_previous_token", "zero_output", "zero"] = Field(
        description="forbid_previous_token: the head cannot attend to the token before; zero_output: the head writes nothing; "
        "zero: the neuron's activation is 0"
    )
    begin: int = Field(0, alias="from", ge=0, description="first update in which it is done")
    to: int | None = Field(None, ge=0, description="last one; none: to the end of training")

    @model_validator(mode="after")
    def _consistent(self) -> "Intervention":
        if (self.head is None) == (self.neuron is None):
            raise ValueError("name one of `head` and `neuron`")
        if (self.neuron is not None) != (self.do == "zero"):
            raise ValueError("a neuron can be held at `zero`; a head can `forbid_previous_token` or `zero_output`")
        if self.to is not None and self.to < self.begin:
            raise ValueError(f"from {self.begin} to {self.to} is no window")
        return self

    def applies(self, update: int) -> bool:
        """Whether it is done in an update."""
        return self.begin <= update and (self.to is None or update <= self.to)

    @property
    def words(self) -> str:
        """What is done.

        >>> Intervention(head=(0, 3), do="zero_output", begin=100, to=400).words
        'head [0, 3]: zero_output in updates 100 to 400'
        """
        what = f"head {list(self.head)}" if self.head is not None else f"neuron {list(self.neuron or ())}"
        until = "the last" if self.to is None else self.to
        return f"{what}: {self.do} in updates {self.begin} to {until}"


def check_interventions(interventions: Sequence[Intervention], model: Model, steps: int) -> None:
    """Whether the model has what is held, and training the updates.

    Raises:
        ValueError: it has not, with what it has.
    """
    for number, each in enumerate(interventions):
        if problem := _problem(each, model, steps):
            raise ValueError(f"intervene[{number}]: {problem}")


def _problem(intervention: Intervention, model: Model, steps: int) -> str | None:
    layer, part = intervention.head or intervention.neuron or (0, 0)
    has_mlp = model.family != "native" or model.d_mlp is not None
    what, count = ("head", model.heads) if intervention.head is not None else ("neuron", model.mlp_width)
    if not 0 <= layer < model.layers:
        return f"there is no layer {layer}; the model has layers 0 to {model.layers - 1}"
    if what == "neuron" and not has_mlp:
        return "the model has no MLP and so no neurons; set model.d_mlp"
    if not 0 <= part < count:
        return f"there is no {what} {part}; a layer has {what}s 0 to {count - 1}"
    if intervention.begin >= steps:
        return f"from: {intervention.begin} is after the last of {steps} updates"
    return None
