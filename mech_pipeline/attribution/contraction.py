"""⟨∇ℓ_i, V⟩ for every example i, direction V and component, and for every token as well.

For a linear layer with input a and output gradient g the gradient of example i is Σ_t g_{i,t} a_{i,t}ᵀ, so

    ⟨∇_W ℓ_i, V⟩ = Σ_t g_{i,t}ᵀ V a_{i,t}.

Not summing over output (or input) units splits the result by head or neuron at no cost; not summing over t splits it by
the *position whose activations were used* (not by the token whose loss it was: that is `target_tokens.py`).

Cost in forward+backward passes of the same data, capture included, 8 directions, 2 layers of width 128: per example
1.1, per token 2.4 (`benchmarks/attribution.py`; ways and operation counts in `outer_products.py`). Agrees with one
backward per example to 1e-6 in float32. Sources: Goodfellow 2015 (per-example gradient norms), Wang et al. 2024 (ghost
dot product).
"""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from transformer_lens.model_bridge.sources.native.model import NativeRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from mech_pipeline.attribution.capture import Capture, Factors, example_factors
from mech_pipeline.attribution.components import Components
from mech_pipeline.attribution.outer_products import CACHE_BYTES, example_sums, outer_is_cheaper, token_sums
from mech_pipeline.attribution.units import Part, parts_of
from mech_pipeline.training.flat import FlatModel

__all__ = ["Capture", "Contraction", "Factors", "example_factors"]


class Contraction:
    """Contracts captured factors with directions in parameter space. A tied parameter counts wherever it is used.

    Args:
        only: glob patterns of component names (`L1H*.K`, `L0N3.*`) to which directions are confined; what holds none of
            them is skipped, so one head costs its share. None: all components.

    Attributes:
        names: the components on the last axis of results.
        modules: names of the modules whose factors are needed, for `Capture` and `example_factors`.

    Raises:
        MechError: a pattern fits no component.
    """

    def __init__(self, flat: FlatModel, components: Components, only: Sequence[str] | None = None) -> None:
        selected = None if only is None else components.matching(only)
        self.names = components.names if selected is None else tuple(components.names[i] for i in selected)
        self._parts = parts_of(flat, components, selected)
        self.modules = frozenset(self._parts)
        self._modules = dict(flat.model.named_modules())

    def __call__(
        self, factors: Factors, directions: Float[Tensor, "direction parameter"]
    ) -> Float[Tensor, "direction example component"]:
        """⟨∇ℓ_i, V⟩ split by component, times whatever scaled ℓ_i when the factors were made.

        `Capture` in a training step: the batch mean's gradient was captured, so 1/B is in it. `example_factors`: 1.
        """
        examples = next(iter(factors.values()))[1].shape[0]
        shape = (len(directions), examples, len(self.names))
        total = torch.zeros(shape, dtype=torch.float64, device=directions.device)
        for name, (value, gradient) in factors.items():
            self.add(total, name, value, gradient, directions)
        return total

    def add(
        self,
        total: Float[Tensor, "direction example component"],
        name: str,
        value: Shaped[Tensor, "example token ..."],
        gradient: Float[Tensor, "example token out"],
        directions: Float[Tensor, "direction parameter"],
    ) -> None:
        """Adds what one module contributes; a module without the wanted components adds nothing."""
        value, gradient = _in_dtype(directions.dtype, value, gradient)
        for part in self._parts.get(name, ()):
            v = part.direction(directions)
            total.index_add_(2, part.component, _examples(self._modules[name], part, value, gradient, v).double())

    def per_token(
        self, factors: Factors, directions: Float[Tensor, "direction parameter"], *, components: bool = False
    ) -> Float[Tensor, "direction example token"] | Float[Tensor, "direction example token component"]:
        """The same split by position t, the one whose activations were used; its sum over t is the example's score.

        Args:
            components: split by component as well.
        """
        examples, tokens = next(iter(factors.values()))[1].shape[:2]
        shape = (len(directions), examples, tokens) + ((len(self.names),) if components else ())
        total = torch.zeros(shape, dtype=torch.float64, device=directions.device)
        wanted = [(name, part) for name in factors for part in self._parts.get(name, ())]
        for name, part in wanted:
            value, gradient = _in_dtype(directions.dtype, *factors[name])
            split = components and len(part.component) > 1
            found = _tokens(self._modules[name], part, value, gradient, part.direction(directions), split=split)
            if components:
                total.index_add_(3, part.component, found.double())
            else:
                total += found[..., 0]
        return total


def _in_dtype(dtype: torch.dtype, value: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Factors of bf16 training in the precision of the directions; token ids stay what they are."""
    return value.to(dtype) if value.is_floating_point() else value, gradient.to(dtype)


def _examples(module: nn.Module, part: Part, value: Tensor, gradient: Tensor, v: Tensor) -> Tensor:
    """One parameter's contribution per direction, example and run."""
    if isinstance(module, nn.Embedding):
        return _embedded(value, gradient, v).sum(2)[..., None]
    if part.kind == "weight" and v.dim() == 3:
        split = len(part.component) > 1
        narrow = not outer_is_cheaper(gradient.shape[1], len(v))
        left, right, v = _sides(module, part, value, gradient, v, split=split, narrow=narrow)
        return example_sums(left, right, v, part.width if split else left.shape[-1])
    summed = _vector_gradient(module, part, value, gradient).sum(1)
    return _runs(part, summed, v, len(part.component))


def _tokens(module: nn.Module, part: Part, value: Tensor, gradient: Tensor, v: Tensor, *, split: bool) -> Tensor:
    """One parameter's contribution per direction, example, token and run (or one run for all)."""
    if isinstance(module, nn.Embedding):
        return _embedded(value, gradient, v)[..., None]
    if part.kind == "weight" and v.dim() == 3:
        left, right, v = _sides(module, part, value, gradient, v, split=split, narrow=True)
        return token_sums(left, right, v, part.width if split else left.shape[-1])
    return _runs(part, _vector_gradient(module, part, value, gradient), v, len(part.component) if split else 1)


def _sides(
    module: nn.Module, part: Part, value: Tensor, gradient: Tensor, v: Tensor, *, split: bool, narrow: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """(side that is kept, side that is summed, V) of a matrix: kept is the one to split, else the first or narrower."""
    rows, columns = (gradient, value) if isinstance(module, nn.Linear) else (value, gradient)  # Conv1D is [in, out]
    if part.axis == 0:
        rows = part.needed(rows, 2)
    elif part.axis == 1:
        columns = part.needed(columns, 2)
    by_columns = part.axis == 1 if split else narrow and columns.shape[-1] < rows.shape[-1]
    return (columns, rows, v.transpose(1, 2)) if by_columns else (rows, columns, v)


def _vector_gradient(module: nn.Module, part: Part, value: Tensor, gradient: Tensor) -> Tensor:
    """Per-token gradient of a bias or of a norm's scale, [example, token, unit]."""
    own = gradient if part.kind == "bias" else gradient * _normalised(module, value)
    return own if part.axis is None else part.needed(own, 2)


def _runs(part: Part, gradients: Tensor, v: Tensor, runs: int) -> Tensor:
    """⟨gradient, V⟩ [direction, …, run] of a vector parameter."""
    split = gradients.reshape(-1, runs, gradients.shape[-1] // runs).transpose(0, 1)
    found = split @ v.reshape(len(v), runs, -1).permute(1, 2, 0)
    return found.permute(2, 1, 0).reshape(len(v), *gradients.shape[:-1], runs)


def _embedded(value: Tensor, gradient: Tensor, v: Tensor) -> Float[Tensor, "direction example token"]:
    """⟨g_t, V[token t]⟩: only rows of tokens that occur are read, nothing is as large as the vocabulary."""
    if value.stride(0) == 0:  # one row for all examples, as positions are given
        return torch.einsum("ktd,etd->ket", v.index_select(1, value[0]), gradient)
    ids, flat = value.reshape(-1), gradient.reshape(-1, gradient.shape[-1])
    step = max(1, CACHE_BYTES // (flat.shape[-1] * flat.element_size()))
    found = [
        torch.stack([(one.index_select(0, ids[some]) * flat[some]).sum(-1) for one in v])
        for some in (slice(begin, begin + step) for begin in range(0, len(flat), step))
    ]
    return torch.cat(found, dim=1).view(len(v), *value.shape)


def _normalised(module: nn.Module, value: Tensor) -> Tensor:
    """The input of a norm layer after normalisation, before its learnt scale."""
    if isinstance(module, nn.LayerNorm):
        return F.layer_norm(value, module.normalized_shape, eps=module.eps)
    assert isinstance(module, NativeRMSNorm | LlamaRMSNorm), "Capture admits no other kind"
    eps = cast(float, module.variance_epsilon if isinstance(module, LlamaRMSNorm) else module.eps)
    return value * torch.rsqrt(value.square().mean(-1, keepdim=True) + eps)
