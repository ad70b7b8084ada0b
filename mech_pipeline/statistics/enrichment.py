"""What is more frequent among some chosen observations than among all: log-odds, exact permutation null, Holm.

A feature is something that an observation has or has not. Of n observations k are chosen; m have the feature, a of them
are chosen. Choosing at random within strata (k_s of the n_s observations of each stratum s, of which m_s have the feature):

    expected   E = Σ_s k_s · m_s / n_s
    log-odds   ln ( (a + ½) / (k − a + ½) ) − ln ( (E + ½) / (k − E + ½) )
    p          2 · min( P(A ≤ a), P(A ≥ a) ), at most 1; A = Σ_s A_s, A_s hypergeometric (n_s, m_s, k_s)

A sum of hypergeometric counts is exactly what permuting the choice within strata gives, so nothing is drawn at random.
Holm 1979 then bounds the chance of a single false finding among all features that are tested together.
Extremes: a feature that all have gives log-odds 0 and p 1; one that the k chosen have and nobody else gives p near 0.

Costs one Fourier transform of the length of a feature's largest possible count per feature and stratum. The transform
leaves errors of 1e-15, so that no p below `SMALLEST` is told from it.
Not to be trusted where observations are not exchangeable: many examples of one document count as many here.
Sources: Fisher 1935 (exact test); Mantel & Haenszel 1959 (strata); Haldane 1956 (the halves); Holm 1979.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy import sparse

SMALLEST = 1e-12
_NUMBERS_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class Enrichment:
    """One entry per feature; see the module.

    Attributes:
        chosen: a, how many of the chosen have it.
        everywhere: m, how many of all have it.
        expected: E, how many of the chosen would have it by chance.
    """

    chosen: NDArray[np.int64]
    everywhere: NDArray[np.int64]
    expected: NDArray[np.float64]
    log_odds: NDArray[np.float64]
    p: NDArray[np.float64]


def enrichment(has: sparse.csr_array, chosen: NDArray[np.bool_], strata: NDArray[np.int64]) -> Enrichment:
    """How much more frequent each feature is among the chosen.

    Fisher's tea: four of eight cups are chosen, all four had milk first. P = 1/70 on either side:

    >>> milk = np.array([True] * 4 + [False] * 4)
    >>> found = enrichment(sparse.csr_array(milk[None, :].astype(int)), milk, np.zeros(8, int))
    >>> found.chosen.tolist(), found.expected.tolist(), round(70 * float(found.p[0]), 9)
    ([4], [2.0], 2.0)

    Args:
        has: [feature, observation], 1 where it has it.
        strata: the choice is compared with choices that take as many from each stratum.
    """
    groups = np.unique(strata)
    members = np.stack([strata == group for group in groups]).astype(np.int64)  # [stratum, observation]
    sizes, taken = members.sum(1), members @ chosen.astype(np.int64)
    with_feature = (has @ members.T).astype(np.int64)  # [feature, stratum]
    observed = (has @ chosen.astype(np.int64)).astype(np.int64)
    expected = with_feature @ (taken / sizes)
    return Enrichment(
        observed,
        with_feature.sum(1),
        expected,
        _logit(observed, int(taken.sum())) - _logit(expected, int(taken.sum())),
        _two_sided(observed, with_feature, sizes, taken),
    )


def holm(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Adjusted so that the chance of any false finding stays below the level.

    >>> holm(np.array([0.01, 0.04, 0.03])).tolist()
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted


def _logit(count: NDArray, of: int) -> NDArray[np.float64]:
    return np.log(count + 0.5) - np.log(of - count + 0.5)


def _two_sided(observed: NDArray, with_feature: NDArray, sizes: NDArray, taken: NDArray) -> NDArray[np.float64]:
    p = np.ones(len(observed))
    most = np.minimum(with_feature, taken).sum(1)  # the largest count that is possible
    for some in _portions(most):
        null = _null(with_feature[some], sizes, taken, int(most[some].max()) + 1)
        below = null.cumsum(1)
        at = observed[some, None]
        lower = np.take_along_axis(below, at, 1)[:, 0]
        upper = 1 - lower + np.take_along_axis(null, at, 1)[:, 0]
        p[some] = np.clip(2 * np.minimum(lower, upper), SMALLEST, 1.0)
    return p


def _portions(most: NDArray) -> Iterator[NDArray[np.int64]]:
    """Features of about the same largest count, so many that their null distributions fit into memory together."""
    order = np.argsort(most, kind="stable")
    begin = 0
    while begin < len(order):
        end = begin + 1
        while end < len(order) and (end + 1 - begin) * (most[order[end]] + 1) <= _NUMBERS_AT_ONCE:
            end += 1
        yield order[begin:end]
        begin = end


def _null(with_feature: NDArray, sizes: NDArray, taken: NDArray, length: int) -> Float[np.ndarray, "feature count"]:
    """The distribution of the number of chosen observations with the feature, under random choice within strata."""
    spectrum = np.ones((len(with_feature), length // 2 + 1), dtype=np.complex128)
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, sizes.max() + 1)))])
    for stratum, (size, count) in enumerate(zip(sizes, taken, strict=True)):
        values, which = np.unique(with_feature[:, stratum], return_inverse=True)
        here = _hypergeometric(values, int(size), int(count), min(int(count), length - 1), log_factorial)
        spectrum *= np.fft.rfft(here, n=length, axis=1)[which]
    return np.clip(np.fft.irfft(spectrum, n=length, axis=1), 0.0, 1.0)


def _hypergeometric(
    having: NDArray, n: int, k: int, most: int, log_factorial: NDArray
) -> Float[np.ndarray, "value count"]:
    """P(a of k drawn from n have it) for a = 0 … `most`, a row for each number of those that have it.

    From one table of logarithms: fifty times as fast as scipy's, which works out each value anew.
    """

    def log_choose(total: NDArray, part: NDArray) -> NDArray:
        possible = (part >= 0) & (part <= total)
        part = np.where(possible, part, 0)
        ways = log_factorial[total] - log_factorial[part] - log_factorial[total - part]
        return np.where(possible, ways, -np.inf)

    m, a = having[:, None], np.arange(most + 1)[None, :]
    return np.exp(log_choose(m, a) + log_choose(n - m, k - a) - log_choose(np.array(n), np.array(k)))
