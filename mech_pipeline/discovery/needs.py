"""What single tokens need to be predicted: the order of what came before them, and which heads and MLPs.

A probe of one token in each sequence sees a mechanism only if many tokens need it. Here every predicted token of the probe's
sequences is looked at, by forwards alone, and those are kept that need what came before them in its order:

    g(x) = L(x | the same tokens before it in another order, the last of them in its place) − L(x | what came before)   ≥ LEAST

at the last checkpoint, mean of two orders. What a token owes to the token before it (pairs) or to which tokens there are (topics)
is in both losses and cancels. Of the kept tokens are known, at checkpoints t,

    L_t(x)                       the course of the loss
    n_t(x, c) = L_t(x | what part c writes is its mean over all tokens) − L_t(x)      mean ablation (Wang et al. 2022, §3.2)

for every head and MLP c; tokens that need the same parts at the same time lie together: of n its square root with its sign, of L
its share of the first loss, each kind of number divided by how much tokens differ in it in all, 16 principal components, HDBSCAN.
A cluster is measured by other orders than its tokens were chosen by: its course g_t − g_0 says when it formed.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from mech_pipeline.discovery.clusters import hdbscan, of_one_size, principal, shares_of_first
from mech_pipeline.discovery.paths import FEWEST
from mech_pipeline.discovery.probe_tokens import ProbeTokens
from mech_pipeline.errors import MechError
from mech_pipeline.mechanisms.ablation.columns import constant, replaced_columns
from mech_pipeline.mechanisms.anatomy import (
    head_slice,
    layer_count,
    neuron_projection,
    neuron_weights,
    output_projection,
)

LEAST = 1.0
"""Nats that a token must lose when what came before it is put in another order."""
FIRST = 3
"""The first place whose context has another order: two tokens to exchange, and the one before it."""
DIMENSIONS = 16
TOGETHER = 64
"""Sequences of one forward."""
ORDERED_AT_ONCE = 2**22
"""Places that are put in another order at a time: some 100 MB."""
_MLP = ".MLP"


@dataclass(frozen=True)
class Part:
    """A head or an MLP: whose output can be held at its mean."""

    name: str
    module: nn.Module
    columns: slice


def parts_of(model: nn.Module, heads: int) -> list[Part]:
    """All heads, layer by layer, and all MLPs that there are."""
    layers = range(layer_count(model))
    found = [
        Part(f"L{layer}H{head}", output_projection(model, layer), head_slice(model, layer, head))
        for layer in layers
        for head in range(heads)
    ]
    with_mlp = [layer for layer in layers if neuron_weights(model, layer) is not None]
    return found + [Part(f"L{layer}{_MLP}", neuron_projection(model, layer), slice(None)) for layer in with_mlp]


@dataclass(frozen=True)
class Needs:
    """What is known of tokens.

    Attributes:
        row, position: where each stands in the sequences.
        losses: at `steps`, nats.
        without: n, nats, at `looks`.
        parts: names.
        gained: g at `steps` by other orders than the tokens were chosen by; NaN where it was not looked.
    """

    row: Int[NDArray, " token"]
    position: Int[NDArray, " token"]
    steps: Int[NDArray, " checkpoint"]
    losses: Float[NDArray, "token checkpoint"]
    looks: Int[NDArray, " look"]
    parts: tuple[str, ...]
    without: Float[NDArray, "token look part"]
    gained: Float[NDArray, "token checkpoint"]

    def __len__(self) -> int:
        return len(self.row)

    def some(self, tokens: Int[NDArray, " token"]) -> "Needs":
        """Those of some tokens."""
        of_tokens = {name: getattr(self, name)[tokens] for name in ("row", "position", "losses", "without", "gained")}
        return replace(self, **of_tokens)

    @property
    def sequences(self) -> Int[NDArray, " token"]:
        """The sequence that each token stands in."""
        return self.row

    def gained_by_looking(self) -> Float[NDArray, "token checkpoint"]:
        """What each token has gained since the first checkpoint from the order of what came before it."""
        return self.gained - self.gained[:, :1]

    def carried(self, tokens: Int[NDArray, " token"]) -> tuple[Float[NDArray, " part"], tuple[str, ...]]:
        """What the tokens lose at the last look without each part; a part that stands in their way: 0."""
        return np.maximum(self.without[tokens, -1].mean(0), 0.0), self.parts

    def looked(self, tokens: Int[NDArray, " token"]) -> tuple[Float[NDArray, " part"], tuple[str, ...]]:
        """The same of heads alone, which look."""
        values, names = self.carried(tokens)
        heads = [index for index, name in enumerate(names) if not name.endswith(_MLP)]
        return values[heads], tuple(names[index] for index in heads)

    def check(self, smallest: int) -> str | None:
        """Why no clusters can be looked for, if that is so.

        Raises:
            MechError: losses that are no numbers, or too few checkpoints.
        """
        if len(self.steps) < FEWEST + 1:
            raise MechError(
                f"{len(self.steps)} checkpoints tell no time of formation", f"plan at least {FEWEST + 1} checkpoints"
            )
        if not (np.isfinite(self.losses).all() and np.isfinite(self.without).all()):
            raise MechError("probe tokens have losses that are no numbers", "look at training's loss")
        fewest = FEWEST * smallest
        too_few = (
            f"fewer than {fewest} tokens need the order of what came before them: too few for clusters of {smallest}"
        )
        return too_few if len(self) < fewest else None


def places(needs: Needs) -> Float[NDArray, "token dimension"]:
    """Where each token lies among what tokens need and when."""
    without = needs.without.reshape(len(needs), -1)
    parts = of_one_size(np.sign(without) * np.sqrt(np.abs(without)))
    share = of_one_size(shares_of_first(needs.losses))
    return principal(np.concatenate([parts, share], axis=1), DIMENSIONS)


def clusters_of_needs(needs: Needs, smallest: int) -> Int[NDArray, " token"]:
    """The cluster of each token, from 0 on; −1: in none.

    Args:
        smallest: tokens of a cluster, at least; four times as few tokens have none.

    Raises:
        MechError: see `Needs.check`.
    """
    if needs.check(smallest) is not None:
        return np.full(len(needs), -1)
    with threadpool_limits(1):
        return hdbscan(places(needs), smallest)


class Look:
    """Losses of all predicted tokens of some sequences, in a model as it is at the time.

    Args:
        model: from token ids to logits.
        tokens: the sequences, on the model's device.
    """

    def __init__(self, model: nn.Module, tokens: Int[Tensor, "sequence place"]) -> None:
        self._model, self._tokens = model, tokens

    def losses(self) -> Float[NDArray, "sequence place"]:
        """−log p(token | context), nats; of the first token, which nothing predicts, NaN."""
        found = torch.full(self._tokens.shape, torch.nan)
        for rows in torch.arange(len(self._tokens)).split(TOGETHER):
            some = self._tokens[rows]
            with torch.no_grad():
                logits = self._model(some[:, :-1])
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), some[:, 1:].flatten(), reduction="none")
            found[rows, 1:] = loss.view(len(rows), -1).float().cpu()
        return found.numpy()

    def without(self, parts: Sequence[Part]) -> Iterator[Float[NDArray, "sequence place"]]:
        """The same with each part at its mean, in turn."""
        means = self._means(parts)
        for part, mean in zip(parts, means, strict=True):
            with replaced_columns(part.module, part.columns, constant(mean)):
                yield self.losses()

    def disordered(
        self, rows: Int[NDArray, " token"], positions: Int[NDArray, " token"], generator: np.random.Generator
    ) -> Float[NDArray, " token"]:
        """The loss of some tokens behind what came before them in another order, the last of it in its place."""
        size = max(TOGETHER, ORDERED_AT_ONCE // self._tokens.shape[1])
        blocks = [slice(begin, begin + size) for begin in range(0, len(rows), size)]
        found = [self._disordered(rows[block], positions[block], generator) for block in blocks]
        return np.concatenate([np.empty(0), *found])

    def _disordered(
        self, rows: Int[NDArray, " token"], positions: Int[NDArray, " token"], generator: np.random.Generator
    ) -> Float[NDArray, " token"]:
        sequences = self._tokens[torch.from_numpy(rows).to(self._tokens.device)]
        order = torch.from_numpy(another_order(positions, sequences.shape[1], generator)).to(sequences.device)
        probe = ProbeTokens(sequences.gather(1, order), torch.from_numpy(positions).to(sequences.device))
        found = torch.empty(len(probe))
        with torch.no_grad():
            for some, part in probe.chunks():
                found[some.cpu()] = part.losses(self._model, part.tokens).float().cpu()
        return found.numpy()

    def _means(self, parts: Sequence[Part]) -> list[Tensor]:
        """What each part writes on average, over all sequences."""
        with ExitStack() as watching:
            sums = [watching.enter_context(_summed(part)) for part in parts]
            self.losses()
        return [torch.stack(each).sum(0) / self._tokens[:, 1:].numel() for each in sums]


def another_order(
    positions: Int[NDArray, " token"], length: int, generator: np.random.Generator
) -> Int[NDArray, "token place"]:
    """For each token the places of its sequence in another order: those up to two before it at random, the others as they are.

    >>> another_order(np.array([3, 4]), 6, np.random.default_rng(1)).tolist()
    [[0, 1, 2, 3, 4, 5], [1, 2, 0, 3, 4, 5]]
    """
    keys = generator.random((len(positions), length))
    places = np.arange(length)
    keys = np.where(places < positions[:, None] - 1, keys, 1.0 + places)
    return keys.argsort(axis=1, kind="stable")


@contextmanager
def _summed(part: Part) -> Iterator[list[Tensor]]:
    """While the block runs, what enters a part's columns is added up over sequences and places."""
    sums: list[Tensor] = []

    def add(_module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        sums.append(arguments[0][..., part.columns].detach().flatten(0, -2).sum(0))

    handle = part.module.register_forward_pre_hook(add)
    try:
        yield sums
    finally:
        handle.remove()


def chosen(
    gains: Float[NDArray, "sequence place"], most: int, generator: np.random.Generator
) -> tuple[Int[NDArray, " token"], Int[NDArray, " token"]]:
    """Sequence and place of the tokens that need the order of what came before them; of too many, some at random.

    Where none does it is the one that needs it most, so that there is something to show of a run that was looked at.

    Args:
        gains: g; NaN where it was not looked.
    """
    known = np.nan_to_num(gains, nan=-np.inf)
    rows, positions = np.nonzero(known >= min(LEAST, known.max()))
    if len(rows) > most:
        kept = np.sort(generator.choice(len(rows), most, replace=False))
        rows, positions = rows[kept], positions[kept]
    return rows, positions
