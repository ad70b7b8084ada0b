"""A mechanism: a named differentiable number of a model's parameters, with its probe data, unit and sign.

    value = sign · readout(model, data(source))

It is reported so that up means more formed. Ledger and influence differentiate it, and evaluate it in double precision.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mech_pipeline.errors import MechError
from mech_pipeline.mechanisms.probe import Probe
from mech_pipeline.mechanisms.requirements import Requirement, no_requirement
from mech_pipeline.mechanisms.source import ProbeSource, nothing, random, tiled
from mech_pipeline.spec.model import Model

Data = TypeVar("Data")
_IN_THE_PROBE: tuple[Callable[[ProbeSource], Any], ...] = (tiled, random, nothing)


@dataclass(frozen=True)
class Mechanism(Generic[Data]):
    """A named differentiable number of the parameters.

    Attributes:
        readout: from a model (a plain module, tokens to logits) and probe data to one number.
        data: makes the probe data, once for each run.
        unit: of the value.
        meaning: what the value says, in half a sentence; shown in reports.
        sign: −1 if a smaller readout means more formed; the value is then minus the readout.
        requires: what of a model it needs, beyond what the readout itself asks for.
        version: raise it when the numbers change; exactly this mechanism is then recomputed. Of a file in the project's
            folder an edit is enough.
        corrupted: makes tokens that fit those of the data one by one and lack what the mechanism is about; with them its
            circuit can be found (`circuits/`).
        name: given by the registry.
    """

    readout: Callable[[nn.Module, Data], Float[Tensor, ""]]
    data: Callable[[ProbeSource], Data]
    unit: str
    meaning: str
    sign: Literal[1, -1] = 1
    requires: Requirement = no_requirement
    version: str = "1"
    corrupted: Callable[[ProbeSource], Int[Tensor, "example token"]] | None = None
    name: str = "unnamed"

    def __post_init__(self) -> None:
        for field in ("readout", "data", "requires"):
            if not callable(getattr(self, field)):
                raise ValueError(f"{field} must be a function, got {getattr(self, field)!r}")
        if not (self.unit and self.meaning and self.version):
            raise ValueError("unit, meaning and version must not be empty")
        if self.sign not in (1, -1):
            raise ValueError(f"sign must be 1 or -1, got {self.sign!r}")

    def value(self, model: nn.Module, probe: Probe) -> Float[Tensor, ""]:
        """The number, up means more formed; differentiable if the readout is.

        Raises:
            MechError: the readout gives something else than one real number, the model lacks what it needs, or the probe
                data do not fit the run's vocabulary or context.
        """
        try:
            parameter = next(model.parameters(), None)
            data = probe.of(self.name, self.data, torch.device("cpu") if parameter is None else parameter.device)
            result = self._number(self.readout(model, data))
        except MechError as error:
            raise MechError(f"mechanism {self.name}: {error.problem}", error.next_step) from error
        except Exception as error:
            error.add_note(f"while mechanism {self.name} was computed")
            raise
        return result if self.sign == 1 else -result

    def missing(self, model: Model) -> str | None:
        """What a model lacks for this mechanism, as a sentence that goes on after its name."""
        of_readout: Requirement = getattr(self.readout, "requires", no_requirement)
        return self.requires(model) or of_readout(model)

    @property
    def reads_text(self) -> bool:
        """Whether its probe data may depend on more than the stored probe: on tokenizer and held-out text."""
        return self.data not in _IN_THE_PROBE

    def _number(self, result: Any) -> Float[Tensor, ""]:
        if isinstance(result, int | float):
            result = torch.tensor(float(result))
        if not isinstance(result, Tensor):
            raise MechError(f"its readout gives a {type(result).__name__}", "return a tensor with one number")
        if result.numel() != 1 or result.is_complex():
            shape = f"a tensor of shape {list(result.shape)} and type {str(result.dtype).removeprefix('torch.')}"
            raise MechError(f"its readout gives {shape}, not one real number", "average or sum it")
        result = result.reshape(()) if result.ndim else result
        return result if result.is_floating_point() else result.float()
