"""Paths of probe tokens: what every component did to every token's loss, window by window."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

from mech_pipeline.errors import MechError

FEWEST = 4
"""Probe tokens for each cluster of least size, at least: fewer show no density."""


@dataclass(frozen=True)
class Paths:
    """Loss changes of the probe tokens of one run.

    Attributes:
        changes: ΔL of `movement.py`, nats; below 0: more likely.
        losses: at the checkpoints around the windows, nats.
        steps: of these checkpoints.
        components: names.
    """

    changes: Float[NDArray, "token window component"]
    losses: Float[NDArray, "token checkpoint"]
    steps: Int[NDArray, " checkpoint"]
    components: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.changes)

    def some(self, tokens: Int[NDArray, " token"]) -> "Paths":
        """Those of some tokens."""
        return replace(self, changes=self.changes[tokens], losses=self.losses[tokens])

    @property
    def sequences(self) -> Int[NDArray, " token"]:
        """Each token has a sequence of its own."""
        return np.arange(len(self))

    @property
    def looking(self) -> Bool[NDArray, " component"]:
        """Which components decide where heads look: their queries and keys."""
        return np.array([name.endswith((".Q", ".K")) for name in self.components])

    def gained_by_looking(self) -> Float[NDArray, "token checkpoint"]:
        """How much of its loss each token has lost so far through queries and keys, at every checkpoint."""
        gained = -self.changes[:, :, self.looking].sum(2).cumsum(1)
        return np.concatenate([np.zeros((len(self), 1)), gained], axis=1)

    def carried(self, tokens: Int[NDArray, " token"]) -> tuple[Float[NDArray, " component"], tuple[str, ...]]:
        """How much of the tokens' drop each component brought."""
        return -self.changes[tokens].sum(1).mean(0), self.components

    def looked(self, tokens: Int[NDArray, " token"]) -> tuple[Float[NDArray, " component"], tuple[str, ...]]:
        """The same of queries and keys alone."""
        values, names = self.carried(tokens)
        looking = np.flatnonzero(self.looking)
        return values[looking], tuple(names[index] for index in looking)

    def check(self, smallest: int) -> None:
        """Whether clusters can be looked for.

        Raises:
            MechError: too few tokens or windows, a number that is none, or a run that did not move.
        """
        tokens, windows, _ = self.changes.shape
        if tokens < FEWEST * smallest:
            raise MechError(
                f"{tokens} probe tokens are too few for clusters of {smallest}",
                f"ask for at least {FEWEST * smallest} with discovery.tokens, or lower discovery.smallest",
            )
        if windows < 4:
            raise MechError(
                f"{windows} windows between checkpoints tell no time of formation", "plan at least 5 checkpoints"
            )
        if not (np.isfinite(self.changes).all() and np.isfinite(self.losses).all()):
            bad = ~(np.isfinite(self.changes).all((1, 2)) & np.isfinite(self.losses).all(1))
            raise MechError(f"{int(bad.sum())} probe tokens have losses that are no numbers", "look at training's loss")
        if not self.changes.any():
            raise MechError("no component moved any probe token's loss", "look at the learning rate")
