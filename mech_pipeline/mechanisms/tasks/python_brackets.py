"""Bracket matching in Python source that is held out: closings as in `brackets.py`, of text that people wrote.

    print(total [ i + 1 ], end    )     the query is the token before a closing bracket, its opener what it closes
         ↑ opener          ↑ query

Which closings can be asked for: `python_closings.py`. Each has a text of its own, from a place drawn evenly at or before
its opener up to the query, and all kinds are asked for equally often: in the wild most closings are round, and always
answering `)` would look like knowledge. Here it is right once in three.

Two controls, because what was written last tells much about what closes:

  * Decoys matched in distance. For a closing whose opener is d tokens before its query, the decoy is d tokens before the
    query of another closing: an opener of that one's depth which is closed already. A head that goes by distance alone
    scores 0. Where no other closing has such an opener, there is no decoy.
  * The opener is exchanged for one of another kind, and all else stays. What that costs is owed to looking at it; to a
    model that goes by the last tokens it costs nothing.

Not to be trusted: as a claim on merged closings, which are about half of all, or on kinds that hardly occur in training.
Source: Sharma & Raval 2026 (decoys, edges); docs/method.md §4.
"""

from collections import defaultdict
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from tokenizers import Tokenizer
from torch import Tensor, nn

from mech_pipeline.data.python_brackets import CLOSERS, OPENERS
from mech_pipeline.errors import MechError
from mech_pipeline.mechanisms.prompts import contrasts
from mech_pipeline.mechanisms.source import ProbeSource
from mech_pipeline.mechanisms.tasks.brackets import Closings, bracket_logit_difference
from mech_pipeline.mechanisms.tasks.python_closings import Place, places

PER_KIND, PER_KIND_OF_DETECTORS = 24, 48
"""Closings of a mechanism, which a ledger evaluates often, and of a detector, which only some closings have a decoy for."""
FEWEST = 4
"""Closings of a kind below which a mean over them says nothing."""


@dataclass(frozen=True)
class Exchanged:
    """Closings, and the same texts with openers of another kind.

    Attributes:
        closings: as they were written.
        tokens: the texts with every asked-for opener exchanged.
    """

    closings: Closings
    tokens: Int[Tensor, "example token"]


def closings(source: ProbeSource) -> Closings:
    """As many closings of each kind, at most `PER_KIND`, each in a text of its own.

    Raises:
        MechError: held-out text has too few closings of a kind that fit the context, or its tokens are not byte-level.
    """
    return _drawn(source, PER_KIND)[0]


def more_closings(source: ProbeSource) -> Closings:
    """The same, at most `PER_KIND_OF_DETECTORS`."""
    return _drawn(source, PER_KIND_OF_DETECTORS)[0]


MORE_CLOSINGS = ("brackets", more_closings)
"""Name and maker of the detectors' probe data."""


def exchanged_openers(source: ProbeSource) -> Int[Tensor, "example token"]:
    """The texts of `closings` with the opener of each closing exchanged for one of another kind, drawn evenly.

    ` (` becomes ` [` where the vocabulary has that token, else `[`, which every byte-level vocabulary has.
    """
    data, generator = _drawn(source, PER_KIND)
    tokens = data.tokens.clone()
    for example, opener, kind in zip(data.example, data.opener, data.correct.tolist(), strict=True):
        other = (kind + int(generator.integers(1, len(OPENERS)))) % len(OPENERS)
        tokens[example, opener] = _of_kind(source.tokenizer, int(tokens[example, opener]), kind, other)
    return tokens


def _of_kind(tokenizer: Tokenizer, token: int, kind: int, other: int) -> int:
    """The token with a bracket of another kind in the place of its own."""
    spelled = tokenizer.id_to_token(token)
    assert spelled is not None, "it comes from this vocabulary"
    exchanged = tokenizer.token_to_id(spelled.replace(OPENERS[kind], OPENERS[other]))
    alone = tokenizer.token_to_id(OPENERS[other])
    assert alone is not None, "a byte-level vocabulary has every byte"
    return alone if exchanged is None else exchanged


def with_exchanged(source: ProbeSource) -> Exchanged:
    """Both."""
    return Exchanged(closings(source), exchanged_openers(source))


def opener_effect(model: nn.Module, data: Exchanged) -> Float[Tensor, ""]:
    """Bracket logit difference minus what is left of it after the opener was exchanged, nats.

    0: the opener's kind does not matter, the answer comes from elsewhere. 1.5 times the logit difference: the answer
    follows the opener alone, to one of two wrong kinds.
    """
    exchanged = replace(data.closings, tokens=data.tokens)
    return bracket_logit_difference(model, data.closings) - bracket_logit_difference(model, exchanged)


def _drawn(source: ProbeSource, per_kind: int) -> tuple[Closings, np.random.Generator]:
    """The closings, and the stream after them."""
    generator = source.generator()
    chosen = _balanced(places(source), per_kind, source.context, generator)
    starts = [int(generator.integers(max(0, place.query - source.context + 1), place.opener + 1)) for place in chosen]
    length = max(place.query + 1 - start for place, start in zip(chosen, starts, strict=True))
    tokens = torch.zeros(len(chosen), length, dtype=torch.long)  # any token will do after the query: nothing sees it
    for row, place, start in zip(tokens, chosen, starts, strict=True):
        row[: place.query + 1 - start] = place.tokens[start : place.query + 1]
    query, opener, correct = torch.tensor(
        [(p.query - start, p.opener - start, p.kind) for p, start in zip(chosen, starts, strict=True)]
    ).unbind(1)
    decoy, decoy_of = torch.tensor(_decoys(chosen, starts, generator)).unbind(1)
    texts = [("(", CLOSERS[kind], CLOSERS[kind - 1]) for kind in range(len(CLOSERS))]
    closers = contrasts(source, texts).correct
    return Closings(tokens, torch.arange(len(chosen)), query, opener, decoy, decoy_of, correct, closers), generator


def _balanced(found: list[Place], per_kind: int, context: int, generator: np.random.Generator) -> list[Place]:
    """As many of each kind, at most `per_kind`."""
    kinds = [[place for place in found if place.kind == kind] for kind in range(len(OPENERS))]
    fewest = min(kinds, key=len)
    if len(fewest) < FEWEST:
        bracket = CLOSERS[kinds.index(fewest)]
        raise MechError(
            f"held-out text has {len(fewest)} closings {bracket} whose opener is in a context of {context} tokens, "
            f"and {FEWEST} are needed",
            "raise data.held_out or data.context, or train on more Python source",
        )
    count = min(per_kind, len(fewest))
    return [kind[index] for kind in kinds for index in generator.choice(len(kind), count, replace=False)]


def _decoys(chosen: list[Place], starts: list[int], generator: np.random.Generator) -> list[tuple[int, int]]:
    """(position, closing that looks) for each closing; −1 and itself where there is none."""
    at_distance: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for number, (place, start) in enumerate(zip(chosen, starts, strict=True)):
        for opener in place.closed:
            if opener >= start:
                at_distance[place.query - opener].append((opener - start, number))
    found = []
    for number, place in enumerate(chosen):
        options = at_distance[place.query - place.opener]
        found.append(options[generator.integers(len(options))] if options else (-1, number))
    return found
