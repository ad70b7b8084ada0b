"""How the rows or columns of each parameter map to components, and which of them a contraction needs.

A weight belongs to components as a whole, by its rows (heads' Q, K, V, neurons' inputs) or by its columns (heads' O,
neurons' outputs). Neighbouring units of one component form a run; all runs of a parameter are equally wide, so a sum
over everything but the run is a reshape, never a loop over heads.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor, nn

from mech_pipeline.attribution.per_example.capture import parametrised_modules
from mech_pipeline.attribution.per_example.components import Components
from mech_pipeline.training.flat import FlatModel


@dataclass(frozen=True)
class Part:
    """One parameter as one module uses it.

    Attributes:
        kind: its name in the module, "weight" or "bias".
        axis: dimension of the stored parameter along which components differ; none: it belongs to one.
        units: which indices along that axis are needed; none: all.
        width: units in a run.
        component: of each run, its place on the component axis of the result.
    """

    kind: str
    begin: int
    end: int
    shape: tuple[int, ...]
    axis: int | None
    units: slice | Int[Tensor, " unit"] | None
    width: int
    component: Int[Tensor, " run"]

    def direction(self, directions: Tensor) -> Tensor:
        """The parameter's part of stacked directions, [direction, *shape], confined to the needed units."""
        own = directions[:, self.begin : self.end].view(len(directions), *self.shape)
        return own if self.axis is None else self.needed(own, 1 + self.axis)

    def needed(self, values: Tensor, dim: int) -> Tensor:
        """The needed units along one dimension."""
        if self.units is None:
            return values
        if isinstance(self.units, slice):
            return values.narrow(dim, self.units.start, self.units.stop - self.units.start)
        return values.index_select(dim, self.units)


def parts_of(
    flat: FlatModel, components: Components, selected: Sequence[int] | None, modules: Collection[str] | None = None
) -> dict[str, list[Part]]:
    """The parts of every module (or of some) that hold selected components (none: all).

    A tied parameter counts in each module; a frozen one in none.
    """
    slots = {id(parameter): slot for slot, parameter in zip(flat.slots, flat.parameters, strict=True)}
    index = flat.named(components.index.cpu())
    place = torch.full((len(components.names),), -1)
    chosen = torch.arange(len(components.names)) if selected is None else torch.tensor(selected, dtype=torch.long)
    place[chosen] = torch.arange(len(chosen))
    found: dict[str, list[Part]] = {}
    for name, module in parametrised_modules(flat.model, modules).items():
        for kind, parameter in module.named_parameters(recurse=False):
            slot = slots.get(id(parameter))
            if slot is None:
                continue
            axis, along = _axis(index[slot.name])
            needed = _needed(place[along], flat.vector.device)
            if needed is not None:
                assert axis is None or not isinstance(module, nn.Embedding), "an embedding is one component"
                found.setdefault(name, []).append(Part(kind, slot.begin, slot.end, slot.shape, axis, *needed))
    return found


def _axis(index: Tensor) -> tuple[int | None, Int[Tensor, " unit"]]:
    """The dimension along which components differ, and the component of each unit along it."""
    if bool((index == index.flatten()[0]).all()):
        return None, index.flatten()[:1]
    if index.dim() == 1 or bool((index == index[:, :1]).all()):
        return 0, index if index.dim() == 1 else index[:, 0]
    assert bool((index == index[:1]).all()), "components split a weight by rows or by columns"
    return 1, index[0]


def _needed(places: Int[Tensor, " unit"], device: torch.device) -> tuple[slice | Tensor | None, int, Tensor] | None:
    """(needed units, width of a run, place of each run); none if nothing is needed."""
    units = (places >= 0).nonzero()[:, 0]
    if not len(units):
        return None
    kept = places[units]
    lengths = torch.unique_consecutive(kept, return_counts=True)[1]
    width = math.gcd(*lengths.tolist())
    which: slice | Tensor | None = units.to(device)
    if len(units) == len(places):
        which = None
    elif int(units[-1] - units[0]) == len(units) - 1:
        which = slice(int(units[0]), int(units[-1]) + 1)
    return which, width, kept[::width].to(device)
