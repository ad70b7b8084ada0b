"""The tokens of some examples as people read them: ids, and the text of every vocabulary entry."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int
from tokenizers import Tokenizer

from mech_pipeline.data.tokenizer import vocabulary_size


@dataclass(frozen=True)
class ExampleTokens:
    """Token ids with their text.

    Attributes:
        ids: of the examples, one row each.
        pieces: text of each vocabulary entry; � stands for a part of a character.
    """

    ids: Int[np.ndarray, "example token"]
    pieces: Sequence[str]

    def quoted(self, *tokens: int) -> str:
        """Some tokens as text in quotes, line breaks and tabs spelled out.

        >>> ExampleTokens(np.zeros((0, 0), int), ["a", "\\n"]).quoted(1, 0)
        '"\\\\na"'
        """
        return json.dumps("".join(self.pieces[token] for token in tokens), ensure_ascii=False)


TokenReader = Callable[[str, Sequence[str]], ExampleTokens | None]
"""The tokens of a run's examples, by run and example ids, in the order asked for; none where they are not at hand."""


def no_tokens(run: str, example_ids: Sequence[str]) -> ExampleTokens | None:
    """For whoever has a connection alone: tokens lie in files beside the tables."""
    return None


def pieces_of(tokenizer: Tokenizer) -> list[str]:
    """The text of each vocabulary entry."""
    return tokenizer.decode_batch([[token] for token in range(vocabulary_size(tokenizer))], skip_special_tokens=False)
