"""Which layers of a model have the per-example gradient that `contraction.py` knows, found by trying.

The reference is one backward for each of two examples. Weights are moved a little at random first, because at some (a zero of
LoRA) everything agrees with everything.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import torch
from jaxtyping import Int
from torch import Tensor, nn

from mech_pipeline.attribution.per_example.capture import Capture, Factors, known_kinds
from mech_pipeline.attribution.per_example.components import Components
from mech_pipeline.attribution.per_example.contraction import Contraction
from mech_pipeline.spec.seeds import fixed_numpy_generator
from mech_pipeline.training.flat import FlatModel
from mech_pipeline.training.model import example_losses

_MOVED = 0.02
_AGREES, _ROUNDING = 1e-4, 4.0
"""Largest difference of ⟨∇ℓ_i, V⟩ relative to ‖∇ℓ_i‖ ‖V‖: float32 leaves 1e-6, another function about 1.
Gradients that are 0 on paper (a key's bias) are rounding of ‖∇ℓ_i‖, in both ways another one."""


class Trial:
    """Two examples, a random direction, and what one backward for each says of every parameter."""

    def __init__(self, flat: FlatModel, tokens: Int[Tensor, "example token"]) -> None:
        self._flat, self._tokens = flat, tokens
        drawn = fixed_numpy_generator("trial of layers").standard_normal((2, len(flat.vector)))
        noise, direction = torch.from_numpy(drawn).to(flat.vector)
        self._theta, self._direction = flat.vector + _MOVED * noise, direction
        with self._moved():
            each = [flat.gradient(example_losses(flat.model, example[None])[0]) for example in tokens]
        self._reference = torch.stack(each)
        self._names = [slot.name for slot in flat.slots]

    def known_modules(self) -> frozenset[str]:
        """Layers all of whose parameters get the right gradient, wherever else these are used."""
        flat = self._flat
        slots = {id(parameter): number for number, parameter in enumerate(flat.parameters)}
        candidates = self._candidates()
        uses = {
            name: {slots[id(p)] for p in module.parameters(recurse=False) if id(p) in slots}
            for name, module in candidates.items()
        }
        found = torch.zeros(len(self._tokens), len(self._names), dtype=torch.float64, device=flat.vector.device)
        wrong = set(range(len(self._names)))
        for name, factors in self._factors(candidates).items():
            with suppress(Exception):  # of another shape than layers are expected to have: not known
                found += self._contracted(name, factors)
                wrong -= uses[name]
        wrong |= {number for number in range(len(self._names)) if not self._is_right(number, found[:, number])}
        known = set(candidates)
        while spoilt := {name for name in known if uses[name] & wrong}:
            known -= spoilt
            wrong |= set().union(*(uses[name] for name in spoilt))
        return frozenset(known)

    def parameters_outside(self, modules: frozenset[str]) -> frozenset[str]:
        """Names of the parameters that no layer of these has."""
        inside = {id(p) for name in modules for p in self._flat.model.get_submodule(name).parameters(recurse=False)}
        outside = zip(self._names, self._flat.parameters, strict=True)
        return frozenset(name for name, parameter in outside if id(parameter) not in inside)

    def agrees(self, gradients: Callable[[Tensor], dict[str, Tensor]]) -> bool:
        """Whether a way to per-example gradients gives what one backward for each gives."""
        with self._moved():
            found = gradients(self._tokens)
        ways = self._flat.named(self._direction)
        return all(
            self._is_right(self._names.index(name), (gradient * ways[name]).flatten(1).sum(1).double())
            for name, gradient in found.items()
        )

    def _is_right(self, number: int, found: Tensor) -> bool:
        slot = self._flat.slots[number]
        own = self._reference[:, slot.begin : slot.end].double()
        way = self._direction[slot.begin : slot.end].double()
        norms = torch.linalg.vector_norm(own, dim=1)
        rounding = _ROUNDING * torch.finfo(self._direction.dtype).eps * torch.linalg.vector_norm(self._reference, dim=1)
        scale = (_AGREES * norms + rounding) * torch.linalg.vector_norm(way)
        return bool(((found - own @ way).abs() <= scale).all())

    def _candidates(self) -> dict[str, nn.Module]:
        """Layers of a known kind that are called once, with what such layers are called with."""
        known, calls = known_kinds(), dict[str, list[bool]]()
        model, wanted = self._flat.model, dict[str, nn.Module]()
        for name, module in model.named_modules():
            if isinstance(module, known) and any(p.requires_grad for p in module.parameters(recurse=False)):
                wanted[name] = module
        hooks = [
            module.register_forward_hook(_seen(calls.setdefault(name, [])), with_kwargs=True)
            for name, module in wanted.items()
        ]
        try:
            with self._moved():
                example_losses(model, self._tokens)
        finally:
            for hook in hooks:
                hook.remove()
        return {name: module for name, module in wanted.items() if calls[name] == [True] and not _is_special(module)}

    def _factors(self, modules: dict[str, nn.Module]) -> Factors:
        with Capture(self._flat.model, modules) as capture, self._moved():
            self._flat.gradient(example_losses(self._flat.model, self._tokens).sum())
        return capture.factors()

    def _contracted(self, name: str, factors: tuple[Tensor, Tensor]) -> Tensor:
        """What one layer adds, [example, parameter number]."""
        sizes = torch.tensor([slot.end - slot.begin for slot in self._flat.slots])
        index = torch.repeat_interleave(torch.arange(len(sizes)), sizes).to(self._direction.device)
        by_slot = Components(tuple(self._names), index)
        return Contraction(self._flat, by_slot, within=[name])({name: factors}, self._direction[None])[0]

    @contextmanager
    def _moved(self) -> Iterator[None]:
        kept = self._flat.vector.clone()
        self._flat.load(self._theta)
        try:
            yield
        finally:
            self._flat.load(kept)


def _seen(calls: list[bool]) -> Callable[..., None]:
    """A hook that notes whether a call had one tensor in and one out, [example, token, …] both."""

    def hook(module: nn.Module, inputs: tuple[object, ...], named: dict[str, object], output: object) -> None:
        value = inputs[0] if len(inputs) == 1 and not named else None
        if isinstance(value, Tensor) and isinstance(output, Tensor):
            calls.append(output.dim() == 3 and value.shape[:2] == output.shape[:2])
        else:
            calls.append(False)

    return hook


def _is_special(module: nn.Module) -> bool:
    """An embedding whose gradient is more than the rows of its tokens."""
    return isinstance(module, nn.Embedding) and bool(
        module.padding_idx is not None or module.max_norm is not None or module.scale_grad_by_freq or module.sparse
    )
