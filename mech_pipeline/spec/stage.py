"""The kind of every part of an experiment: frozen, closed, each field with a unit or a sentence."""

from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator

from mech_pipeline.spec.kinds import check_kind

Files = TypeVar("Files", bound="NamesFiles")
Share = Annotated[float, Field(ge=0, le=1)]


class Stage(BaseModel):
    """Frozen and closed: a misspelt key is an error, not a silent default, and so is a value of another kind."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _of_its_kind(cls, value: Any, info: Any) -> Any:  # a ValidationInfo, a protocol that no runtime check can see
        check_kind(value, cls.model_fields[info.field_name].annotation)
        return value


class NamesFiles(Stage):
    """A stage that may name files. It is fingerprinted as it is written; where relative names begin is no part of it."""

    _home: Path | None = PrivateAttr(None)

    @property
    def home(self) -> Path:
        """The folder that relative names begin at: that of the project, or without one the current folder."""
        return self._home or Path.cwd()

    def __eq__(self, other: object) -> bool:
        """Stages are equal when they say the same, wherever their names begin."""
        return type(self) is type(other) and self.__dict__ == other.__dict__

    def at(self: Files, home: Path) -> Files:
        """The same stage, with names that begin at a folder."""
        copy = self.model_copy()
        copy._home = home
        return copy


def added(default: Any, description: str, **limits: Any) -> Any:
    """A field that came after runs had been trained: at its default it is left out of fingerprints, so nothing retrains.

    The default must mean what was done before the field existed, and must never change.
    """
    return Field(default, description=description, exclude_if=lambda value: value == default, **limits)
