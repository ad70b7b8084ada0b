"""What an example may have or not: characteristics, tokens, pairs of neighbouring tokens; as one sparse matrix.

Which features are looked at never depends on the account: those that at least `FEWEST` examples have and at least as
many have not. Numbers with many values (lengths, updates) are cut at their quintiles.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from mech_pipeline.data.example_tokens import ExampleTokens

FEWEST = 10
"""Examples; of fewer, a share says nothing."""
_AS_THEY_ARE = 24
"""Numbers with up to so many values are characteristics each; others are cut at their quintiles."""
_NUMBERS = ("period", "length", "first_seen", "times_seen")


@dataclass(frozen=True)
class Features:
    """Named features of some examples.

    Attributes:
        family: of each: kind, document, period, token, …
        name: of each, as it is shown.
        has: [feature, example].
    """

    family: list[str]
    name: list[str]
    has: sparse.csr_array

    def __len__(self) -> int:
        return len(self.name)


def characteristics(examples: pl.DataFrame) -> Features:
    """Kind, source, document, period, length, order and number of times seen.

    >>> rows = {"kind": ["a", "b"] * 20, "source": ["s"] * 40, "document": ["d"] * 40, "period": [0] * 40,
    ...     "length": [8] * 40, "first_seen": list(range(40)), "times_seen": [1] * 40}
    >>> found = characteristics(pl.DataFrame(rows))
    >>> found.family, found.name[:3]
    (['kind', 'kind'], ['a', 'b'])
    """
    columns = [(name, examples[name]) for name in ("kind", "source", "document")]
    columns += [(name, _in_words(name, examples[name])) for name in _NUMBERS]
    named = [
        (name, str(value), (column == value).fill_null(False).to_numpy())
        for name, column in columns
        for value in column.drop_nulls().unique().sort()
    ]
    kept = [each for each in named if FEWEST <= each[2].sum() <= len(examples) - FEWEST]
    has = np.stack([each[2] for each in kept]) if kept else np.zeros((0, len(examples)), dtype=bool)
    return Features([f for f, _, _ in kept], [n for _, n, _ in kept], sparse.csr_array(has.astype(np.int64)))


def _in_words(name: str, column: pl.Series) -> pl.Series:
    """A number as a characteristic: itself, or the fifth of the examples that it is in."""
    values = column.drop_nulls()
    if values.n_unique() <= _AS_THEY_ARE:
        return column.cast(pl.String).replace({"0": "none"} if name == "period" else {})
    cuts = sorted({int(np.quantile(values.to_numpy(), share)) for share in (0.2, 0.4, 0.6, 0.8)})
    bounds = [int(values.min()), *cuts, int(values.max())]  # type: ignore[arg-type]  # polars: any literal
    starts = [bounds[0], *(cut + 1 for cut in cuts)]
    labels = [f"{first:,}–{last:,}" for first, last in zip(starts, bounds[1:], strict=True)]
    places = np.searchsorted(cuts, column.fill_null(bounds[0]).to_numpy())  # a cut ends the fifth below it
    named = pl.DataFrame({"there": column.is_not_null(), "name": pl.Series(labels).gather(places)})
    return named.select(pl.when("there").then("name")).to_series()


def token_features(tokens: ExampleTokens) -> Iterator[Features]:
    """Single tokens, then pairs of neighbours that stand in the example."""
    yield _of_codes("token", tokens.ids.astype(np.int64), tokens.quoted)
    size = int(tokens.ids.max(initial=0)) + 1
    pairs = tokens.ids[:, :-1].astype(np.int64) * size + tokens.ids[:, 1:]
    yield _of_codes("bigram", pairs, lambda code: tokens.quoted(*divmod(code, size)))


def distinct_tokens(tokens: ExampleTokens) -> NDArray[np.int64]:
    """How many different tokens each example has."""
    ordered = np.sort(tokens.ids, axis=1)
    return 1 + (ordered[:, 1:] != ordered[:, :-1]).sum(1)


def _of_codes(family: str, codes: NDArray[np.int64], name: Callable[[int], str]) -> Features:
    """A feature for each code that enough examples have."""
    values, place = np.unique(codes, return_inverse=True)
    example = np.repeat(np.arange(len(codes)), codes.shape[1])
    has = sparse.csr_array((np.ones(codes.size, np.int64), (place.ravel(), example)), (len(values), len(codes)))
    has.data[:] = 1
    frequent = np.diff(has.indptr)
    kept = np.flatnonzero((frequent >= FEWEST) & (frequent <= len(codes) - FEWEST))
    return Features([family] * len(kept), [name(int(values[at])) for at in kept], has[kept])
