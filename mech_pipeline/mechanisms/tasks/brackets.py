"""Bracket matching: which kind closes next, and which heads look at the bracket that is to be closed.

    open ( [ ] { ( ) } → )            the query is the last token before a closing bracket, its opener the first bracket
         ↑ opener        ↑ query

Only closings with something between opener and query count: a neighbour needs no matching. Attention to the opener is
compared with that to a decoy: an opener of the same depth that is closed already, nearest to the true one. Attention
alone is not causal, so the knock-out of that very edge stands beside it. Closings come from words of the language `dyck`
here and from Python source in `python_brackets.py`; readouts and detectors are the same.
Source: Sharma & Raval 2026 (top of stack, edges masked); docs/method.md §4.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mech_pipeline.data.languages import dyck
from mech_pipeline.errors import MechError
from mech_pipeline.mechanisms.ablation.attention_edges import lost_without_edges, pattern_of
from mech_pipeline.mechanisms.probe import Probe
from mech_pipeline.mechanisms.prompts import contrasts, prompts
from mech_pipeline.mechanisms.source import ProbeSource
from mech_pipeline.training.bridge_type import TransformerBridge

WORDS = 24
Places = Int[Tensor, " closing"]


@dataclass(frozen=True)
class Closings:
    """Closing brackets of words or of source text, each asked for at the token before it.

    Attributes:
        tokens: the texts.
        example, query, opener: of each closing, its text, the position that predicts it, and its opener's position.
        decoy: position of an opener of the same depth that is closed already; −1 where there is none.
        decoy_of: the closing from whose query the decoy is looked at, and whose depth it has; with the closing itself,
            each is its own.
        correct: its kind, a place in `closers`.
        closers: the token of each kind.
    """

    tokens: Int[Tensor, "example token"]
    example: Places
    query: Places
    opener: Places
    decoy: Places
    decoy_of: Places
    correct: Places
    closers: Int[Tensor, " kind"]


Source = Callable[[ProbeSource], Closings]


def closings(source: ProbeSource) -> Closings:
    """All closings of random words that have something between them and their opener.

    Raises:
        MechError: a bracket is not one token in this vocabulary, or a word does not fit the context.
    """
    words, _ = _words(source)
    tokens = prompts(source, [word.text for word in words]).tokens
    first = prompts(source, [dyck.BEGIN]).tokens.shape[1]
    if tokens.shape[1] != first + len(words[0].brackets) + 1:
        raise MechError("a bracket is not one token in this vocabulary", "train the tokenizer on `generated: dyck`")
    texts = [(dyck.BEGIN, f" {one}", f" {other}") for one, other in zip(dyck.CLOSERS, dyck.OPENERS, strict=True)]
    found = [row for number, word in enumerate(words) for row in _closings_of(number, word, first)]
    example, query, opener, decoy, correct = torch.tensor(found).unbind(1)
    own = torch.arange(len(found))
    return Closings(tokens, example, query, opener, decoy, own, correct, contrasts(source, texts).correct)


CLOSINGS = ("brackets", closings)
"""Name and maker of the detectors' probe data."""


def other_kinds(source: ProbeSource) -> Int[Tensor, "example token"]:
    """The words of `closings`, token by token, with the kind of every pair drawn anew: the answers are right by chance only."""
    words, generator = _words(source)
    return prompts(source, [dyck.with_other_kinds(word, generator).text for word in words]).tokens


def _words(source: ProbeSource) -> tuple[list[dyck.Word], np.random.Generator]:
    """The words, and the stream after them."""
    generator = source.generator()
    return [dyck.word(generator) for _ in range(WORDS)], generator


def _closings_of(number: int, word: dyck.Word, first: int) -> Iterator[tuple[int, int, int, int, int]]:
    """(word, query, opener, decoy, kind), in positions of tokens."""
    depth = _depths(word)
    for place, bracket in enumerate(word.brackets):
        opener = word.match[place]
        if bracket not in dyck.CLOSERS or place - opener < 2:
            continue
        closed = [o for o in range(place) if o != opener and depth[o] == depth[opener] and o < word.match[o] < place]
        decoy = min(closed, key=lambda other: abs(other - opener), default=-1 - first)
        yield number, first + place - 1, first + opener, first + decoy, dyck.CLOSERS.index(bracket)


def _depths(word: dyck.Word) -> list[int]:
    """Brackets open before each."""
    found, open_now = [], 0
    for bracket in word.brackets:
        open_now -= bracket in dyck.CLOSERS
        found.append(open_now)
        open_now += bracket in dyck.OPENERS
    return found


def bracket_logit_difference(model: nn.Module, data: Closings) -> Float[Tensor, ""]:
    """Mean over closings of logit(the kind that closes) − mean logit(the other kinds), nats. 0: no preference."""
    return _difference(_closer_logits(model(data.tokens), data), data)


def bracket_accuracy(model: nn.Module, data: Closings) -> Float[Tensor, ""]:
    """Share of closings whose kind has the largest logit among the kinds. A step function: it has no gradient."""
    return (_closer_logits(model(data.tokens), data).argmax(-1) == data.correct).float().mean()


def matching(
    bridge: TransformerBridge, patterns: list[Tensor], probe: Probe, asked: tuple[str, Source] = CLOSINGS
) -> Float[Tensor, "layer head"]:
    """Attention from the query to the opener minus that to the decoy, where there is one.

    1: all attention is on the true opener; 0: as much on the decoy; uniform attention: 0.

    Args:
        asked: name and maker of the closings.
    """
    data = probe.of(*asked)
    some = data.decoy >= 0
    seen = data.decoy_of[some]
    names = [pattern_of(layer) for layer in range(bridge.cfg.n_layers)]
    with torch.no_grad():
        _, cache = bridge.run_with_cache(data.tokens, names_filter=names)

    def attention(pattern: Tensor, closing: Tensor, key: Places) -> Tensor:
        return pattern[data.example[closing], :, data.query[closing], key[some]].mean(0)

    return torch.stack(
        [attention(cache[name], some, data.opener) - attention(cache[name], seen, data.decoy) for name in names]
    )


def knockout(
    bridge: TransformerBridge, patterns: list[Tensor], probe: Probe, asked: tuple[str, Source] = CLOSINGS
) -> Float[Tensor, "layer head"]:
    """How much of the logit difference goes when a head may not look from the queries to their openers, nats.

    All closings at once, one head at a time. Source: Sharma & Raval 2026, masked attention to the top of the stack.

    Args:
        asked: name and maker of the closings.
    """
    data = probe.of(*asked)
    edges = (data.example, data.query, data.opener)
    return lost_without_edges(
        bridge, data.tokens, lambda logits: _difference(_closer_logits(logits, data), data), edges
    )


def _closer_logits(logits: Tensor, data: Closings) -> Float[Tensor, "closing kind"]:
    return logits[data.example, data.query][:, data.closers]


def _difference(logits: Float[Tensor, "closing kind"], data: Closings) -> Float[Tensor, ""]:
    right = logits.gather(1, data.correct[:, None])[:, 0]
    wrong = (logits.sum(1) - right) / (logits.shape[1] - 1)
    return (right - wrong).mean()
