"""Induction by two tokens: attention to what followed an earlier occurrence of the same pair.

Sequences on which looking for one token is not enough: a segment of two orders of the same m tokens, a b c d | c a d b, and
its repetition. Every token occurs at two places of the segment, every pair of neighbours at one. So a query in the
repetition has one earlier pair like its own, but two or three earlier copies of its token.
A head that looks for the pair scores 1; one that looks for the token alone scores about 0.45 (its target is one of two or
three); uniform attention about 1/position.
Source: Olsson et al. 2022, prefix matching; Akyürek et al. 2024, "In-Context Language Learning: Architectures and
Algorithms", n-gram heads.
"""

from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mech_pipeline.mechanisms.detectors.heads import Pattern, Tokens, mean_attention
from mech_pipeline.mechanisms.probe import Probe
from mech_pipeline.mechanisms.sequences import Sequences
from mech_pipeline.mechanisms.source import ProbeSource
from mech_pipeline.training.bridge_type import TransformerBridge

COUNT = 16


def repeated_pairs(source: ProbeSource) -> Sequences:
    """Such sequences as long as the context, the period even, random between about 1/2 and 3/4 of it."""
    return draw_repeated_pairs(source.vocabulary, COUNT, source.context, source.generator())


PAIRS = ("prefix_matching_2", repeated_pairs)
"""Name and maker of the probe data."""


def draw_repeated_pairs(vocabulary: int, count: int, context: int, generator: np.random.Generator) -> Sequences:
    """Each a segment of two orders of m random tokens, then its repetition up to the context.

    Args:
        context: at least 8 tokens, so that the repetition has a pair.
    """
    assert context >= 8, "nothing of the segment would be repeated"
    assert vocabulary >= 2, "two orders need two tokens"
    low, high = -(-context // 4), min(3 * context // 8, vocabulary)
    sizes = generator.integers(min(low, high), high + 1, size=count)
    rows = [np.resize(_segment(generator.permutation(vocabulary)[:size], generator), context) for size in sizes]
    return Sequences(torch.tensor(np.array(rows)), torch.from_numpy(2 * sizes))


def prefix_matching_2_score(pattern: Pattern, tokens: Tokens) -> Float[Tensor, " head"]:
    """Mean attention from each repeated pair (its second token) to the tokens that followed its earlier occurrences.

    Raises:
        ValueError: no pair occurs twice, so the score is undefined.
    """
    return mean_attention(pattern, _after_earlier_pairs(tokens), "pair of tokens")


def prefix_matching_2(bridge: TransformerBridge, patterns: list[Tensor], probe: Probe) -> Float[Tensor, "layer head"]:
    """Attention to what followed earlier occurrences of the same two tokens."""
    tokens = probe.of(*PAIRS).tokens
    names = [f"blocks.{layer}.attn.hook_pattern" for layer in range(bridge.cfg.n_layers)]
    with torch.no_grad():
        _, cache = bridge.run_with_cache(tokens, names_filter=names)
    return torch.stack([prefix_matching_2_score(cache[name], tokens) for name in names])


def _segment(first: Int[np.ndarray, " token"], generator: np.random.Generator) -> Int[np.ndarray, " twice"]:
    """Two orders of some tokens without a pair of neighbours twice, also where it goes round."""
    while True:  # a third of all orders will do; the reverse always does
        both = np.concatenate([first, generator.permutation(first)])
        if len(set(pairwise([*both.tolist(), int(both[0])]))) == len(both):
            return both


def _after_earlier_pairs(tokens: Tokens) -> Bool[Tensor, "example query key"]:
    """True where the two tokens before the key are the query's token and the one before it."""
    same = tokens[:, :, None] == tokens[:, None, :]
    after = torch.zeros_like(same)
    after[:, 1:, 2:] = same[:, 1:, 1:-1] & same[:, :-1, :-2]
    return after.tril()
