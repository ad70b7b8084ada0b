"""Sketches of per-example gradients straight from their factors: no gradient of an example is ever held whole.

S maps P numbers to `width`: every parameter gets a random sign s_p and a bucket h(p), and (S x)_b = Σ_{h(p) = b} s_p x_p. Over
the random signs, for every x and y,

    E ⟨Sx, Sy⟩ = ⟨x, y⟩,        Var ⟨Sx, Sy⟩ = Σ_{p ≠ q, h(p) = h(q)} x_p² y_q² + x_p y_p x_q y_q  ≈  (‖x‖² ‖y‖² + ⟨x, y⟩²) / width

so a cosine has a standard error of about √((1 + cos²) / width). It is a count sketch, as `estimators/sketches.py`, of one block,
laid out for speed: a weight is cut into pieces of whole rows, a piece is folded (its k-th number goes to bucket k mod width) and
turned by a random number of places. Within a piece only numbers that lie a multiple of the width apart meet; the width is prime,
so these are no rows or columns of a weight. There are several streams of signs: what is sought in the sketches of one and judged
in those of another does not take the sketch's own error for agreement.

A diagonal metric A costs nothing: S (A ⊙ x) has s_p A_p in the place of s_p. The gradient of a piece, Σ_t g_t a_tᵀ, is formed for
all examples of a batch while it fits the cache, multiplied, folded and forgotten.
Cost: that of the batch's weight gradients, and about 1 ns per parameter, example and metric. Memory: a byte per parameter and
stream.
Source: Charikar et al. 2002; Hu et al. 2025 (GraSS) project factors likewise, but without a metric between them.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mech_pipeline.attribution.per_example.capture import Factors
from mech_pipeline.attribution.per_example.components import Components
from mech_pipeline.attribution.per_example.layer_sums import in_dtype, matrix_sides, vector_gradient
from mech_pipeline.attribution.per_example.units import Part, parts_of
from mech_pipeline.training.flat import FlatModel
from mech_pipeline.training.seeds import torch_generator

WIDTH = 1021
"""Buckets: a prime; cosines of 0 come with a standard error of .031."""
_FOLDS = 8
"""Widths in a piece."""
STREAMS = 2
"""Independent streams of signs."""


class FactorSketcher:
    """S of one model; the same for the same seed and width.

    Args:
        seed: of the run; the stream has a name of its own.
        width: buckets; a prime.

    Raises:
        TypeError: a module with parameters is of a kind whose per-example gradient is not known.
    """

    def __init__(self, flat: FlatModel, seed: int, width: int = WIDTH) -> None:
        self.width = width
        device = flat.vector.device
        whole = Components(("all",), torch.zeros(len(flat.vector), dtype=torch.long, device=device))
        self._parts = parts_of(flat, whole, None)
        self._modules = dict(flat.model.named_modules())
        generator = torch_generator(seed, f"sketch of factors {width}")
        signs = torch.randint(0, 2, (STREAMS, len(flat.vector)), generator=generator, dtype=torch.int8)
        self._signs = (2 * signs - 1).to(device)
        self._shifts = {
            slot.begin: torch.randint(
                0, width, (-(-_sides(slot.shape)[0] // self._rows(slot.shape)),), generator=generator
            )
            for slot in flat.slots
        }
        self._slots = flat.slots

    def signed(self, metric: Float[Tensor, " parameter"], stream: int = 0) -> Float[Tensor, " parameter"]:
        """What `__call__` takes for the diagonal metric A."""
        return metric * self._signs[stream]

    def __call__(
        self, factors: Factors, signed: Sequence[Float[Tensor, " parameter"]]
    ) -> Float[Tensor, "metric example sketch"]:
        """S (A ⊙ ∇ℓ_i) for each metric and example, times whatever scaled ℓ_i when the factors were made.

        Args:
            signed: metrics, see `signed`.
        """
        count = next(iter(factors.values()))[1].shape[0]
        total = signed[0].new_zeros(len(signed), count, self.width)
        for name, captured in factors.items():
            value, gradient = in_dtype(total.dtype, *captured)
            for part in self._parts.get(name, ()):
                self._add(total, self._modules[name], part, value, gradient, signed)
        return total

    def vector(self, x: Float[Tensor, " parameter"], stream: int = 0) -> Float[Tensor, " sketch"]:
        """S x of one vector."""
        total = x.new_zeros(1, self.width)
        signed = self.signed(x, stream)
        for slot in self._slots:
            for rows, shift in self._pieces(slot.begin, slot.shape):
                self._fold(total, signed[slot.begin : slot.end].view(_sides(slot.shape))[rows].reshape(1, -1), shift)
        return total[0]

    def _add(
        self, total: Tensor, module: nn.Module, part: Part, value: Tensor, gradient: Tensor, signed: Sequence[Tensor]
    ) -> None:
        """One parameter of one module."""
        weights = [each[part.begin : part.end].view(_sides(part.shape)) for each in signed]
        if isinstance(module, nn.Embedding):
            self._add_embedding(total, part, value.expand(gradient.shape[:2]), gradient, weights)
            return
        if part.kind == "weight" and len(part.shape) == 2:
            left, right = matrix_sides(module, value, gradient)
        else:
            left, right = None, vector_gradient(module, part, value, gradient).sum(1)
        for rows, shift in self._pieces(part.begin, part.shape):
            piece = right if left is None else (left[..., rows].transpose(1, 2) @ right).flatten(1)
            for number, each in enumerate(weights):
                self._fold(total[number], piece * each[rows].flatten(), shift)

    def _add_embedding(
        self, total: Tensor, part: Part, ids: Int[Tensor, "example token"], gradient: Tensor, weights: Sequence[Tensor]
    ) -> None:
        """Rows of tokens that occur: nothing is as large as the vocabulary."""
        rows, columns = self._rows(part.shape), part.shape[1]
        begin = ids % rows * columns + self._shifts[part.begin].to(ids.device)[ids // rows]
        places = (begin[..., None] + torch.arange(columns, device=ids.device)) % self.width
        places = places + self.width * torch.arange(len(ids), device=ids.device)[:, None, None]
        for number, each in enumerate(weights):
            total[number].view(-1).index_add_(0, places.flatten(), (gradient * each[ids]).flatten())

    def _fold(
        self, total: Float[Tensor, "example sketch"], numbers: Float[Tensor, "example number"], turn: int
    ) -> None:
        """Adds numbers to their buckets."""
        count = numbers.shape[1] // self.width * self.width
        folded = numbers[:, :count].view(len(numbers), -1, self.width).sum(1)
        folded[:, : numbers.shape[1] - count] += numbers[:, count:]
        total[:, turn:] += folded[:, : self.width - turn]
        total[:, :turn] += folded[:, self.width - turn :]

    def _rows(self, shape: tuple[int, ...]) -> int:
        """Rows of a parameter in a piece."""
        return max(1, _FOLDS * self.width // _sides(shape)[1])

    def _pieces(self, begin: int, shape: tuple[int, ...]) -> list[tuple[slice, int]]:
        """The rows of each piece, and how far it is turned."""
        rows = self._rows(shape)
        return [
            (slice(number * rows, (number + 1) * rows), turn)
            for number, turn in enumerate(self._shifts[begin].tolist())
        ]


def _sides(shape: tuple[int, ...]) -> tuple[int, int]:
    """A parameter as a matrix; what is no matrix is one row."""
    return (shape[0], shape[1]) if len(shape) == 2 else (1, max(1, int(torch.Size(shape).numel())))
