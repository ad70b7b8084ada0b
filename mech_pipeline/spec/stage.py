"""The kind of every part of an experiment: frozen, closed, each field with a unit or a sentence."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]


class Stage(BaseModel):
    """Frozen and closed: a misspelt key is an error, not a silent default."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def added(default: Any, description: str, **limits: Any) -> Any:
    """A field that came after runs had been trained: at its default it is left out of fingerprints, so nothing retrains.

    The default must mean what was done before the field existed, and must never change.
    """
    return Field(default, description=description, exclude_if=lambda value: value == default, **limits)
