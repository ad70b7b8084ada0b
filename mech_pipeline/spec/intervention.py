"""What is done to the model itself while it trains: a head or a neuron is held in a window of updates.

The forward pass of these updates is another one, and so are their gradients; evaluation is always of the model as it is.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import Literal

from pydantic import ConfigDict, Field, model_validator

from mech_pipeline.spec.model import Model
from mech_pipeline.spec.stage import Stage, added

_OF_HEADS = ("forbid_previous_token", "zero_output", "mean_output")
_OF_NEURONS = ("zero", "mean", "clamp")
_LARGEST = 1e6
"""No activation is so large in a model that trains: a larger number is a slip, and far larger ones are infinite in 32 bits."""


class Intervention(Stage):
    """One part of the model in one window of updates."""

    model_config = ConfigDict(populate_by_name=True)

    head: tuple[int, int] | None = Field(None, description="[layer, head], both from 0")
    neuron: tuple[int, int] | None = Field(None, description="[layer, neuron of its MLP], both from 0")
    do: Literal["forbid_previous_token", "zero_output", "mean_output", "zero", "mean", "clamp"] = Field(
        description="forbid_previous_token: the head cannot attend to the token before; zero_output: the head writes nothing; "
        "mean_output: it writes its mean over the batch everywhere; zero: the neuron's activation is 0; mean: it is its mean "
        "over the batch everywhere; clamp: it is `value`"
    )
    value: float | None = added(
        None, "for `do: clamp`: the neuron's activation, as the MLP's second matrix gets it", ge=-_LARGEST, le=_LARGEST
    )
    begin: int = Field(0, alias="from", ge=0, description="first update in which it is done")
    to: int | None = Field(None, ge=0, description="last one; none: to the end of training")

    @model_validator(mode="after")
    def _consistent(self) -> "Intervention":
        if (self.head is None) == (self.neuron is None):
            raise ValueError("name one of `head` and `neuron`")
        allowed = _OF_HEADS if self.head is not None else _OF_NEURONS
        if self.do not in allowed:
            part = "head" if self.head is not None else "neuron"
            raise ValueError(f"`{self.do}` is not for a {part}; what is: {', '.join(allowed)}")
        if (self.value is not None) != (self.do == "clamp"):
            raise ValueError(
                "`clamp` needs a `value`" if self.do == "clamp" else f"`{self.do}` takes no value; `clamp` does"
            )
        if self.to is not None and self.to < self.begin:
            raise ValueError(f"from {self.begin} to {self.to} is no window")
        return self

    def applies(self, update: int) -> bool:
        """Whether it is done in an update."""
        return self.begin <= update and (self.to is None or update <= self.to)

    @property
    def at_mean(self) -> bool:
        """Whether the part is held at what it is on average over the batch."""
        return self.do in ("mean", "mean_output")

    def contradicts(self, other: "Intervention") -> bool:
        """Whether both hold the activations of one part in the same update, and not at the same."""
        if "forbid_previous_token" in (self.do, other.do) or (self.do, self.value) == (other.do, other.value):
            return False
        same = (self.head, self.neuron) == (other.head, other.neuron)
        return same and (self.applies(other.begin) or other.applies(self.begin))

    @property
    def words(self) -> str:
        """What is done.

        >>> Intervention(head=(0, 3), do="zero_output", begin=100, to=400).words
        'head [0, 3]: zero_output in updates 100 to 400'
        >>> Intervention(neuron=(1, 7), do="clamp", value=0.3).words
        'neuron [1, 7]: clamp at 0.3 in updates 0 to the last'
        """
        what = f"head {list(self.head)}" if self.head is not None else f"neuron {list(self.neuron or ())}"
        until = "the last" if self.to is None else self.to
        at = "" if self.value is None else f" at {self.value:g}"
        return f"{what}: {self.do}{at} in updates {self.begin} to {until}"


def check_interventions(interventions: Sequence[Intervention], model: Model, steps: int) -> None:
    """Whether the model has what is held, and training the updates, and no part is held at two values at once.

    Raises:
        ValueError: it has not, with what it has; or two that cannot both be done.
    """
    for number, each in enumerate(interventions):
        if problem := _problem(each, model, steps):
            raise ValueError(f"intervene[{number}]: {problem}")
    for one, other in combinations(interventions, 2):
        if one.contradicts(other):
            raise ValueError(f"intervene: {one.words}, and {other.words}; part the windows, or leave one out")


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
