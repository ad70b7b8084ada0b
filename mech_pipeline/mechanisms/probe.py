"""The probe of a run: held-out text, tiled, random tokens, repeated, and what each mechanism makes of them.

Never trained on.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from mech_pipeline.mechanisms.sequences import Sequences
from mech_pipeline.mechanisms.source import Origin, ProbeSource

__all__ = ["Probe", "Sequences"]
Data = TypeVar("Data")
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Probe:
    """All probe data of a run.

    Attributes:
        tiled: snippets of held-out documents, repeated.
        random: random tokens, repeated once with random period.
        origin: the run's tokenizer and held-out text; without it mechanisms have the sequences alone.
    """

    tiled: Sequences
    random: Sequences
    origin: Origin | None = None
    _made: dict[Any, tuple[Any, Any]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def of(self, mechanism: str, data: Callable[[ProbeSource], Data], device: torch.device = _CPU) -> Data:
        """The probe data of a mechanism, made when first asked for and kept.

        Args:
            data: makes them from the source.
            device: where their tensors shall lie.
        """
        key = mechanism, id(data), device  # kept beside `data`, so that the id stays taken
        if key not in self._made:
            if device == _CPU:
                made: Any = data(ProbeSource(mechanism, self.tiled, self.random, self.origin))
            else:
                made = _moved(self.of(mechanism, data), device)
            self._made[key] = data, made
        return self._made[key][1]


def _moved(data: Any, device: torch.device) -> Any:
    """The same data with all tensors on a device, inside dataclasses, lists, tuples and dictionaries as well."""
    if isinstance(data, Tensor):
        return data.to(device)
    if is_dataclass(data) and not isinstance(data, type):
        return replace(data, **{f.name: _moved(getattr(data, f.name), device) for f in fields(data) if f.init})
    if type(data) in (list, tuple):
        return type(data)(_moved(item, device) for item in data)
    if type(data) is dict:
        return {name: _moved(item, device) for name, item in data.items()}
    return data
