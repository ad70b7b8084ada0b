"""Probe data from text: prompts with answers, encoded by the run's tokenizer and checked against vocabulary and context.

Shorter prompts are padded on the right, where a causal model cannot see the padding from the positions that matter.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from mech_pipeline.errors import MechError
from mech_pipeline.mechanisms.readouts.inputs import Contrast, Marked, Placed
from mech_pipeline.mechanisms.source import ProbeSource

_PADDING = 0  # any token will do


def prompts(source: ProbeSource, texts: Sequence[str]) -> Placed:
    """Prompts, and their last tokens as positions.

    Raises:
        MechError: a prompt does not fit the vocabulary or the context, or there is none.
    """
    rows = [_encoded(source, text, f"prompt {number}") for number, text in enumerate(texts, start=1)]
    return Placed(_padded(rows), torch.tensor([len(row) - 1 for row in rows]))


def contrasts(source: ProbeSource, texts: Sequence[tuple[str, str, str]]) -> Contrast:
    """(prompt, correct answer, wrong answer), each answer one token.

    Raises:
        MechError: a prompt or an answer does not fit the vocabulary or the context.
    """
    placed = prompts(source, [prompt for prompt, _, _ in texts])
    answers = [
        (
            _token(source, correct, f"correct answer of prompt {number}"),
            _token(source, wrong, f"wrong answer of prompt {number}"),
        )
        for number, (_, correct, wrong) in enumerate(texts, start=1)
    ]
    return Contrast(placed.tokens, placed.position, *torch.tensor(answers).unbind(1))


def continuations(source: ProbeSource, texts: Sequence[tuple[str, str]]) -> Marked:
    """(prompt, continuation): the tokens of the continuation are marked, for a loss.

    Raises:
        MechError: one of them does not fit the vocabulary, or both together the context.
    """
    rows, begins = [], []
    for number, (prompt, continuation) in enumerate(texts, start=1):
        before = _encoded(source, prompt, f"prompt {number}")
        after = _encoded(source, continuation, f"continuation of prompt {number}")
        _check_length(source, before + after, prompt + continuation, f"prompt {number} with its continuation")
        rows.append(before + after)
        begins.append(len(before))
    tokens = _padded(rows)
    place = torch.arange(tokens.shape[1])
    begin, end = torch.tensor(begins)[:, None], torch.tensor([len(row) for row in rows])[:, None]
    return Marked(tokens, (place >= begin) & (place < end))


def _encoded(source: ProbeSource, text: str, what: str) -> list[int]:
    """Token ids; nothing is added."""
    tokenizer = source.tokenizer
    encoding = tokenizer.encode(text, add_special_tokens=False)
    seen = {place for begin, end in encoding.offsets for place in range(begin, end)}
    lost = [character for place, character in enumerate(text) if place not in seen and not character.isspace()]
    unknown = tokenizer.token_to_id(getattr(tokenizer.model, "unk_token", None) or "")
    lost += [
        text[slice(*offsets)] for token, offsets in zip(encoding.ids, encoding.offsets, strict=True) if token == unknown
    ]
    if lost or not encoding.ids:
        raise MechError(
            f"{what}, {text!r}, does not fit the vocabulary of {source.vocabulary} tokens: "
            + (f"it has no token for {lost[0]!r}" if lost else "it is empty"),
            "write it in characters that the run's tokenizer knows",
        )
    _check_length(source, encoding.ids, text, what)
    return encoding.ids


def _check_length(source: ProbeSource, ids: list[int], text: str, what: str) -> None:
    if len(ids) > source.context:
        raise MechError(
            f"{what}, {text!r}, does not fit: it has {len(ids)} tokens, the context {source.context}",
            "shorten it, or raise data.context",
        )


def _token(source: ProbeSource, text: str, what: str) -> int:
    ids = _encoded(source, text, what)
    if len(ids) != 1:
        pieces = ", ".join(repr(source.tokenizer.decode([token])) for token in ids)
        raise MechError(
            f"{what}, {text!r}, must be one token, but is {len(ids)} in this vocabulary of {source.vocabulary}: {pieces}",
            "use an answer that is one token, or a larger tokenizer.vocabulary",
        )
    return ids[0]


def _padded(rows: list[list[int]]) -> Int[Tensor, "example token"]:
    if not rows:
        raise MechError("there are no prompts", "write at least one")
    longest = max(len(row) for row in rows)
    return torch.tensor([row + [_PADDING] * (longest - len(row)) for row in rows])
