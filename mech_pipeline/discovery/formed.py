"""What formed in a cluster of tokens: when, through which components, and whether it is more than learning words.

Most of what a language model learns first are frequencies of tokens and of pairs. They change losses by nats and make clusters,
and need no head to look anywhere. What is called formed here is therefore what was gained by looking: the drop of a cluster's
mean loss through heads' queries and keys,

    G(t) = −Σ_{windows ≤ t} Σ_{c ∈ Q, K} mean_x ΔL[x, c].

A cluster is a discovery where the lower end of the 95 % bootstrap interval (over the sequences of its tokens) of G at the last
checkpoint is at least `LOCKED` nats, and they stand in `FEWEST_SEQUENCES` or more. The former was set beforehand on runs in which
nothing of the kind can form (docs/discovery.md says on which, and how often they exceed it), and is not to be tuned on the run
that is looked at.

Where clusters are by what tokens need (`needs.py`) G is instead what the order of the context had come to be worth, measured by
other orders than the tokens were chosen by; the threshold is the same number.

It begins at the checkpoint where G bends upwards most (second difference: slopes over two windows on each side), and is half
there where G passes the middle. Intervals are percentiles over the same resamples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from mech_pipeline.spec.seeds import fixed_numpy_generator

LOCKED = 0.75
"""Nats gained by looking that make a discovery."""
FEWEST_SEQUENCES = 4
"""In which the tokens of a discovery stand."""
RESAMPLES, SPAN, SHARE = 400, 2, 0.8
_HIDDEN = 3.0
"""A breakthrough is hidden where the cluster gains so many times what all tokens do."""


@runtime_checkable
class Followed(Protocol):
    """Tokens that were followed through training: by paths (`Paths`), or by what they need (`Needs`).

    Attributes:
        steps: of the checkpoints.
        losses: at them, nats.
        sequences: the sequence that each stands in.
    """

    @property
    def sequences(self) -> Int[NDArray, " token"]: ...
    @property
    def steps(self) -> Int[NDArray, " checkpoint"]: ...
    @property
    def losses(self) -> Float[NDArray, "token checkpoint"]: ...

    def gained_by_looking(self) -> Float[NDArray, "token checkpoint"]:
        """G of each token at every checkpoint."""
        ...

    def carried(self, tokens: Int[NDArray, " token"]) -> tuple[Float[NDArray, " component"], tuple[str, ...]]:
        """What some tokens owe to each component, nats, and the names of these."""
        ...

    def looked(self, tokens: Int[NDArray, " token"]) -> tuple[Float[NDArray, " component"], tuple[str, ...]]:
        """The same of components that decide where is looked."""
        ...


@dataclass(frozen=True)
class Interval:
    """A number with its 95 % bootstrap interval over the sequences that tokens stand in."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Formed:
    """What happened to a cluster of tokens.

    Attributes:
        tokens: their indices.
        sequences: in so many they stand.
        curve: mean loss at every checkpoint, nats.
        drop: of the mean loss over the run, nats a token.
        looking: of that, gained through queries and keys.
        begins, half: steps.
        components: those that carry at least 80 % of the drop, largest first, with their shares of it; of `Needs`, of the sum of
            what is lost without each.
        hidden: at `half` the cluster gained far more than all tokens did, whose mean loss does not show it.
    """

    tokens: Int[NDArray, " token"]
    sequences: int
    curve: Float[NDArray, " checkpoint"]
    drop: Interval
    looking: Interval
    begins: Interval
    half: Interval
    components: tuple[tuple[str, float], ...]
    hidden: bool

    @property
    def is_discovery(self) -> bool:
        """Whether it passes the locked threshold, and is no peculiarity of a sequence or two."""
        return self.looking.low >= LOCKED and self.sequences >= FEWEST_SEQUENCES


def formed(paths: Followed, tokens: Int[NDArray, " token"], seed: int = 0) -> Formed:
    """What formed in some tokens.

    Args:
        seed: of the resamples.
    """
    weights = resampled(paths.sequences[tokens], seed)
    curves = weights @ paths.gained_by_looking()[tokens]
    drops = paths.losses[tokens, 0] - paths.losses[tokens, -1]
    return Formed(
        tokens=tokens,
        sequences=len(np.unique(paths.sequences[tokens])),
        curve=paths.losses[tokens].mean(0),
        drop=_interval(weights @ drops),
        looking=_interval(curves[:, -1]),
        begins=_interval(np.array([bends(curve, paths.steps) for curve in curves])),
        half=_interval(np.array([halfway(curve, paths.steps) for curve in curves])),
        components=carriers(*paths.carried(tokens)),
        hidden=_hidden(paths, tokens, halfway(curves[0], paths.steps)),
    )


def resampled(sequences: Int[NDArray, " token"], seed: int) -> Float[NDArray, "resample token"]:
    """Weights of tokens in means: alike in the first row; in the others those of sequences drawn with replacement, all of whose
    tokens come along, since tokens of one sequence are not independent.

    >>> np.unique(resampled(np.array([7, 7, 9]), seed=0)[1:].round(2), axis=0).tolist()
    [[0.0, 0.0, 1.0], [0.33, 0.33, 0.33], [0.5, 0.5, 0.0]]
    """
    of = np.unique(sequences, return_inverse=True)[1]
    count = int(of.max()) + 1
    drawn = fixed_numpy_generator("resamples of a cluster", seed).integers(0, count, (RESAMPLES, count))
    times = np.stack([np.ones(count, dtype=int), *(np.bincount(each, minlength=count) for each in drawn)])
    weights = times[:, of].astype(float)
    return weights / weights.sum(1, keepdims=True)


def discoveries(paths: Followed, labels: Int[NDArray, " token"], seed: int = 0) -> list[Formed]:
    """What formed in every cluster, most gained by looking first.

    Args:
        labels: the cluster of each token; −1: none.
    """
    found = [formed(paths, np.flatnonzero(labels == label), seed) for label in np.unique(labels[labels >= 0])]
    return sorted(found, key=lambda one: -one.looking.low)


def bends(curve: Float[NDArray, " checkpoint"], steps: Int[NDArray, " checkpoint"]) -> float:
    """The checkpoint where the slope rises most.

    >>> bends(np.array([0, 0, 0, 0, 0, 1, 2, 3, 4.0]), np.arange(9) * 10)
    40.0
    """
    span = min(SPAN, (len(curve) - 1) // 2)
    before = (curve[span:-span] - curve[: -2 * span]) / (steps[span:-span] - steps[: -2 * span])
    after = (curve[2 * span :] - curve[span:-span]) / (steps[2 * span :] - steps[span:-span])
    return float(steps[span + int(np.argmax(after - before))])


def halfway(curve: Float[NDArray, " checkpoint"], steps: Int[NDArray, " checkpoint"]) -> float:
    """The first checkpoint at which half of the largest value is reached.

    >>> halfway(np.array([0, 0, 1, 3, 4.0]), np.arange(5) * 10)
    30.0
    """
    return float(steps[int(np.argmax(curve >= curve.max() / 2))])


def carriers(
    owed: Float[NDArray, " component"], names: Sequence[str], share: float = SHARE
) -> tuple[tuple[str, float], ...]:
    """The fewest components to which together a share of what tokens owe to all is owed, and the share of each.

    >>> carriers(np.array([1.0, 6.0, 3.0]), ["a", "b", "c"])
    (('b', 0.6), ('c', 0.3))
    """
    total = owed.sum()
    if total <= 0:
        return ()
    order = np.argsort(-owed, kind="stable")
    reached = np.cumsum(owed[order]) / total
    count = int(np.argmax(reached >= share)) + 1
    return tuple((names[index], float(owed[index] / total)) for index in order[:count])


def _hidden(paths: Followed, tokens: Int[NDArray, " token"], step: float) -> bool:
    """Whether the mean loss of all tokens does not show what the cluster's does around a step."""
    at = int(np.searchsorted(paths.steps, step))
    begin, end = max(at - SPAN, 0), min(at + SPAN, len(paths.steps) - 1)
    fell = paths.losses[:, begin] - paths.losses[:, end]
    return bool(fell[tokens].mean() > _HIDDEN * max(float(fell.mean()), 0.0) and fell[tokens].mean() > 0)


def _interval(values: Float[NDArray, " resample"]) -> Interval:
    """The first value, and percentiles of the others."""
    low, high = np.percentile(values[1:], [2.5, 97.5])
    return Interval(float(values[0]), float(low), float(high))
