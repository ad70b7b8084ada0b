"""The examples at both ends of an account, against all examples that have a total in it.

Characteristics are compared with all choices of as many examples. Tokens and pairs of tokens are compared with choices of
as many examples of the same kind and about as many different tokens (quarters): an example with more different tokens has
each of them more often, whatever it did. One Holm correction covers everything that is tested at one end of one account.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mech_pipeline.data.example_tokens import ExampleTokens
from mech_pipeline.reports.contrast.features import (
    Features,
    characteristics,
    distinct_tokens,
    token_features,
)
from mech_pipeline.statistics.enrichment import Enrichment, enrichment, holm
from mech_pipeline.statistics.overlap import tail_size

SHARE = 0.05
"""Of the examples, at either end."""
LEVEL = 0.05
"""A feature is named if Holm's p is below it."""


@dataclass(frozen=True)
class Difference:
    """One feature that an end has more or less often than chance gives.

    Attributes:
        chosen, expected: how many of the end have it, and would by chance.
        everywhere: how many of all have it.
        documents: of how many documents those of the end are.
        p: Holm's.
    """

    family: str
    name: str
    chosen: int
    expected: float
    everywhere: int
    documents: int
    log_odds: float
    p: float

    @property
    def beyond_chance(self) -> float:
        """How many more of the end have it than by chance: what it explains of the end, at most."""
        return self.chosen - self.expected


@dataclass(frozen=True)
class End:
    """One end of an account.

    Attributes:
        n: examples in it.
        tested: features that were compared.
        differences: those that differ, the most certain first, then the largest.
        share_of_sign: what they carry of all totals with their sign.
    """

    n: int
    tested: int
    differences: list[Difference]
    share_of_sign: float

    def more(self, *families: str) -> list[Difference]:
        """What it has more often, of some families."""
        return [each for each in self.differences if each.family in families and each.log_odds > 0]

    def less(self, *families: str) -> list[Difference]:
        """What it has less often, of some families."""
        return [each for each in self.differences if each.family in families and each.log_odds < 0]


@dataclass(frozen=True)
class Contrast:
    """Both ends of an account.

    Attributes:
        examples: `queries.example_totals`.
        tokens: of the same examples in the same order; none where they are not at hand.
    """

    examples: pl.DataFrame
    tokens: ExampleTokens | None

    @cached_property
    def top(self) -> End:
        """The examples with the largest totals."""
        return self._end(np.arange(len(self.examples)) < tail_size(len(self.examples), SHARE), 1)

    def explains_the_top(self, *families: str) -> list[Difference]:
        """What the top has more often than chance gives, what explains most of it first.

        What the bottom has more often as well is taken off, because it tells of size and not of direction. Of features that
        the same numbers of examples have (a kind and its only length, say) the first stands for all.
        """
        below = {(each.family, each.name): each.beyond_chance for each in self.bottom.more(*families)}
        kept: dict[tuple[int, int], tuple[float, Difference]] = {}
        for each in self.top.more(*families):
            explained = each.beyond_chance - below.get((each.family, each.name), 0.0)
            if explained > 0:
                kept.setdefault((each.chosen, each.everywhere), (explained, each))
        return [each for _, each in sorted(kept.values(), key=lambda pair: (-pair[0], pair[1].p, pair[1].name))]

    @cached_property
    def bottom(self) -> End:
        """The examples with the smallest totals."""
        n = len(self.examples)
        return self._end(np.arange(n) >= n - tail_size(n, SHARE), -1)

    def _end(self, chosen: NDArray[np.bool_], sign: int) -> End:
        if self.examples.is_empty():  # the mechanism was there before the first update
            return End(0, 0, [], 0.0)
        found = [(features, enrichment(features.has, chosen, strata)) for features, strata in self._features]
        p = holm(np.concatenate([each.p for _, each in found]))
        parts = np.split(p, np.cumsum([len(features) for features, _ in found])[:-1])
        named = [
            difference
            for (features, numbers), adjusted in zip(found, parts, strict=True)
            for difference in self._differences(features, numbers, adjusted, chosen)
        ]
        signed = np.clip(sign * self.examples["total"].to_numpy(), 0, None)
        carried = float(signed[chosen].sum() / signed.sum()) if signed.sum() else 0.0
        order = sorted(named, key=lambda each: (each.p, -abs(each.log_odds), each.name))
        return End(int(chosen.sum()), len(p), order, carried)

    @cached_property
    def _features(self) -> list[tuple[Features, NDArray[np.int64]]]:
        """What is compared, and within which strata."""
        found = [(characteristics(self.examples), np.zeros(len(self.examples), dtype=np.int64))]
        if self.tokens is not None:
            found += [(features, self._strata(self.tokens)) for features in token_features(self.tokens)]
        return found

    def _strata(self, tokens: ExampleTokens) -> NDArray[np.int64]:
        kinds = self.examples["kind"].fill_null("").rank("dense").to_numpy().astype(np.int64)
        distinct = distinct_tokens(tokens)
        quarter = np.searchsorted(np.quantile(distinct, (0.25, 0.5, 0.75)), distinct)
        return kinds * 4 + quarter

    def _differences(
        self, features: Features, numbers: Enrichment, p: np.ndarray, chosen: NDArray[np.bool_]
    ) -> Iterator[Difference]:
        documents = self.examples["document"].to_numpy()
        for at in np.flatnonzero(p < LEVEL):
            having = features.has[[at]].indices
            yield Difference(
                features.family[at],
                features.name[at],
                int(numbers.chosen[at]),
                float(numbers.expected[at]),
                int(numbers.everywhere[at]),
                len(set(documents[having[chosen[having]]].tolist())),
                float(numbers.log_odds[at]),
                float(p[at]),
            )
