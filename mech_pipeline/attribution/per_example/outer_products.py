"""Sums over one weight of Σ_t x_{i,t} ⊗ y_{i,t} against V, for every example i, or for every token t as well.

x [example, token, left] and y [example, token, right] are a linear layer's output gradient and input (or the reverse),
V [direction, left, right]. `left` is the side that is split into runs of units; the other is always summed. Two ways:

    products:        Z_k = y V_kᵀ, then Σ x ∘ Z_k       2 K T LR operations a layer and example, token scores at hand
    outer products:  G_i = x_iᵀ y_i, then ⟨G_i, V_k⟩     2 T LR + 2 K LR: with several directions far less

A large matrix product runs at 75 Gflop/s here, the batched one of G_i at 60, and the last, which reads all G_i once,
at 20 (float32, one thread); `outer_is_cheaper` weighs operations by that. Blocks keep what is in between in cache.
"""

import torch
from jaxtyping import Float
from torch import Tensor

GRADIENT_BYTES = 64 * 2**20
"""Per-example gradients of one weight that are held at once."""
CACHE_BYTES = 2 * 2**20
"""Products that are held at once: they are written and read again while still in cache."""
GPU_BYTES = 256 * 2**20
"""The same on a GPU, where small kernels cost more than memory."""
PIECE = 4096
"""Entries of G_i and V that are multiplied and summed in the precision of the model; longer sums lose digits."""
_BATCHED, _READING, _GRADIENT = 1.25, 3.75, 8.0


def outer_is_cheaper(tokens: int, directions: int) -> bool:
    """Whether per-example gradients pay; true from two directions on, at any usual context."""
    return _BATCHED * tokens + _GRADIENT + _READING * directions < tokens * directions


def example_sums(
    x: Float[Tensor, "example token left"],
    y: Float[Tensor, "example token right"],
    v: Float[Tensor, "direction left right"],
    width: int,
) -> Float[Tensor, "direction example run"]:
    """⟨Σ_t x ⊗ y, V⟩ per example, split into runs of `width` units of the left side."""
    tokens, left = x.shape[1:]
    if outer_is_cheaper(tokens, len(v)):
        return _by_outer_products(x, y, v, width)
    sums = [_products(x[some], y[some], v).view(len(v), -1, left // width, width).sum(-1) for some in _blocks(x, v)]
    return torch.cat(sums, dim=1)


def bytes_at_once(x: Tensor) -> int:
    """How much may be held at once where a tensor is."""
    return CACHE_BYTES if x.device.type == "cpu" else GPU_BYTES


def _blocks(x: Tensor, v: Tensor) -> list[slice]:
    """Slices of examples whose products fit the cache."""
    examples, tokens, left = x.shape
    step = max(1, bytes_at_once(x) // (tokens * left * len(v) * x.element_size()))
    return [slice(begin, begin + step) for begin in range(0, examples, step)]


def _products(x: Tensor, y: Tensor, v: Tensor) -> Float[Tensor, "direction example left"]:
    """Σ_t x ∘ (y Vᵀ) of one block of examples."""
    flat = y.reshape(-1, y.shape[-1])
    return torch.stack([(flat @ one.T).view_as(x).mul_(x).sum(1) for one in v])


def _by_outer_products(x: Tensor, y: Tensor, v: Tensor, width: int) -> Float[Tensor, "direction example run"]:
    """The same through G_i = Σ_t x ⊗ y, as many rows and examples at a time as `GRADIENT_BYTES` hold."""
    examples, _, left = x.shape
    right = y.shape[-1]
    total = torch.zeros(len(v), examples, left // width, dtype=torch.float64, device=x.device)
    for top, bottom, piece in _row_blocks(left, right, width, x.element_size()):
        pieces = (bottom - top) // piece
        runs = slice(top // width, -(-bottom // width))  # whole runs, or a part of the only one
        against = v[:, top:bottom].reshape(len(v), pieces, -1).permute(1, 2, 0)
        step = max(1, GRADIENT_BYTES // ((bottom - top) * right * x.element_size()))
        for begin in range(0, examples, step):
            some = slice(begin, begin + step)
            gradients = x[some, :, top:bottom].transpose(1, 2) @ y[some]
            found = gradients.view(len(gradients), pieces, -1).transpose(0, 1) @ against
            total[:, some, runs] += found.double().unflatten(0, (runs.stop - runs.start, -1)).sum(1).permute(2, 1, 0)
    return total


def _row_blocks(left: int, right: int, width: int, size: int) -> list[tuple[int, int, int]]:
    """(first row, end, rows of a piece): what is multiplied at once; the sum over pieces is one in float64."""
    most = max(1, PIECE // right)
    if width == left:  # one run, which blocks may cut anywhere
        piece = min(left, most)
        rows = max(1, GRADIENT_BYTES // (right * size * piece)) * piece
    else:
        piece = max(n for n in range(1, min(width, most) + 1) if width % n == 0)
        rows = max(1, GRADIENT_BYTES // (right * size * width)) * width
    even = left // piece * piece
    blocks = [(top, min(even, top + rows), piece) for top in range(0, even, rows)]
    return blocks if even == left else [*blocks, (even, left, left - even)]


def token_sums(
    x: Float[Tensor, "example token left"],
    y: Float[Tensor, "example token right"],
    v: Float[Tensor, "direction left right"],
    width: int,
) -> Float[Tensor, "direction example token run"]:
    """x_t ᵀ V y_t per token, split into runs of `width` units of the left side: one matrix product for all directions."""
    directions, left, right = v.shape
    examples, tokens, _ = x.shape
    stacked = v.reshape(directions * left, right).T
    flat_x, flat_y = x.reshape(-1, 1, left), y.reshape(-1, right)
    step = max(64, bytes_at_once(x) // (directions * left * x.element_size()))
    found = []
    for begin in range(0, len(flat_x), step):
        some = slice(begin, begin + step)
        product = (flat_y[some] @ stacked).view(-1, directions, left).mul_(flat_x[some])
        found.append(product.view(len(product), directions, left // width, width).sum(-1))
    return torch.cat(found).view(examples, tokens, directions, left // width).permute(2, 0, 1, 3)
