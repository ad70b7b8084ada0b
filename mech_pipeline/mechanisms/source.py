"""What a mechanism makes its probe data of: repeated sequences, tokenizer, held-out text, a random stream of its own.

Tokenizer and held-out text are read from the store when a mechanism first asks for them, and never otherwise. Everything
here is a function of the run's data and of the mechanism's name, so probe data are the same whenever they are made.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from mech_pipeline.data.examples import plain_places
from mech_pipeline.data.tokenised import TokenisedCorpus
from mech_pipeline.errors import MechError
from mech_pipeline.mechanisms.sequences import Sequences
from mech_pipeline.spec.seeds import numpy_generator


@dataclass(frozen=True)
class HeldOut:
    """Text that no run trains on.

    Attributes:
        corpus: all tokens of the corpus.
        chosen: which of its documents are held out.
    """

    corpus: TokenisedCorpus
    chosen: NDArray[np.bool_]


@dataclass(frozen=True)
class Origin:
    """What the tokens of a run were made with.

    Attributes:
        vocabulary: of the tokenizer; token ids lie below it.
        seed: `probe.seed` of the experiment.
        read_tokenizer: called when a mechanism first encodes text.
        read_held_out: called when a mechanism first asks for held-out text.
    """

    vocabulary: int
    seed: int
    read_tokenizer: Callable[[], Tokenizer]
    read_held_out: Callable[[], HeldOut]

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The run's tokenizer."""
        return self.read_tokenizer()

    @cached_property
    def held_out(self) -> HeldOut:
        """The run's held-out documents."""
        return self.read_held_out()


@dataclass(frozen=True)
class ProbeSource:
    """Everything that the probe data of one mechanism may be made of.

    Attributes:
        mechanism: its name.
        tiled: snippets of held-out documents, repeated.
        random: random tokens, repeated once with random period.
        origin: where the rest comes from; none for a probe made of sequences alone.
    """

    mechanism: str
    tiled: Sequences
    random: Sequences
    origin: Origin | None = None

    @property
    def context(self) -> int:
        """Most tokens that a sequence can have."""
        return self.tiled.tokens.shape[1]

    @property
    def vocabulary(self) -> int:
        """Token ids lie below it."""
        return self._origin().vocabulary

    @property
    def tokenizer(self) -> Tokenizer:
        """The run's tokenizer; for prompts see `prompts.py`, which checks that they fit."""
        return self._origin().tokenizer

    def generator(self) -> np.random.Generator:
        """A random stream of this mechanism's own, from its start at every call."""
        return numpy_generator(self._origin().seed, f"probe:{self.mechanism}")

    def held_out_documents(self) -> Iterator[Int[Tensor, " token"]]:
        """The token ids of each held-out document, in the order of the corpus."""
        held = self._origin().held_out
        return (_int64(held.corpus.tokens_of(int(index))) for index in np.flatnonzero(held.chosen))

    def held_out_windows(self, count: int, length: int | None = None) -> Int[Tensor, "example token"]:
        """Windows of consecutive held-out text, uniform over all places where one fits.

        Args:
            length: tokens of each; default: the context.

        Raises:
            MechError: it is longer than the context, or no held-out document is that long.
        """
        length = self.context if length is None else length
        if not 1 <= length <= self.context:
            raise MechError(f"windows of {length} tokens do not fit: the context has {self.context}", "ask for fewer")
        held = self._origin().held_out
        places = plain_places(held.corpus, held.chosen, count, length, self.generator())
        return _int64(places.tokens(held.corpus, length))

    def _origin(self) -> Origin:
        if self.origin is None:
            raise MechError(
                f"probe data of mechanism {self.mechanism} need a run's tokenizer or text; this probe has sequences alone",
                "give Probe an origin, as pipeline/tokens/tokens.py does",
            )
        return self.origin


def tiled(source: ProbeSource) -> Sequences:
    """Probe data: snippets of held-out documents, repeated."""
    return source.tiled


def random(source: ProbeSource) -> Sequences:
    """Probe data: random tokens, repeated once with random period."""
    return source.random


def nothing(source: ProbeSource) -> None:
    """Probe data of a readout that looks at the weights alone."""


def _int64(array: NDArray) -> Int[Tensor, "..."]:
    return torch.from_numpy(array.astype(np.int64))
