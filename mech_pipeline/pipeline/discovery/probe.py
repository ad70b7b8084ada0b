"""The probe tokens of a run: examples as training's own, made of held-out documents, and one predicted token in each.

Kinds and parts come in the shares that they have in the pool, or in the run's mixture, averaged over its phases.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from mech_pipeline.data.corpora import read_corpus
from mech_pipeline.data.documents import Documents
from mech_pipeline.data.drawing import DrawnPool, apportion, draw_pool
from mech_pipeline.data.tokenizer import tokenizer_identity
from mech_pipeline.discovery.probe_tokens import ProbeTokens
from mech_pipeline.errors import MechError
from mech_pipeline.mechanisms.source import Origin
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.spec.mixture import members
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.spec.seeds import numpy_generator

_MOST_TIMES = 64
"""How many times more examples are drawn, at most, where a mixture asks for other shares than the pool's."""


@dataclass(frozen=True)
class DrawnTokens:
    """Probe tokens and where they are from.

    Attributes:
        groups: `tiled`, `plain`, `packed`, or with the part of the corpus before it.
        periods: length of the snippet that a tiled example repeats; 0: it repeats none.
    """

    probe: ProbeTokens
    groups: list[str]
    periods: NDArray[np.int64]

    @property
    def repeated(self) -> NDArray[np.bool_]:
        """Whether each token stands in a second or later copy of a tiled snippet."""
        return (self.periods > 0) & (self.probe.position.numpy() >= self.periods)

    def at(self, rows: NDArray[np.int64], positions: NDArray[np.int64]) -> "DrawnTokens":
        """Other tokens of the same sequences."""
        probe = ProbeTokens(self.probe.tokens[torch.from_numpy(rows)], torch.from_numpy(positions))
        return DrawnTokens(probe, [self.groups[row] for row in rows], self.periods[rows])


def drawn_for(run: OpenRun) -> DrawnTokens:
    """The probe tokens of a run that is open; see `draw_tokens`."""
    origin = run.tokens.probe.origin
    assert origin is not None, "a run's probe knows its tokenizer"
    return draw_tokens(run.spec, origin)


def draw_tokens(spec: RunSpec, origin: Origin) -> DrawnTokens:
    """The probe tokens that a run asks for; the same whenever they are drawn.

    Raises:
        MechError: held-out text does not hold so many examples.
    """
    asked, mixed = spec.discovery, _mixture(spec)
    held = origin.held_out
    corpus = replace(held.corpus, documents=_documents(spec, len(held.chosen))) if spec.corpus.parts else held.corpus
    end = None if spec.tokenizer.end_of_text is None else origin.tokenizer.token_to_id(spec.tokenizer.end_of_text)
    identity, parts = tokenizer_identity(origin.tokenizer), list(spec.corpus.parts)

    def drawn(times: int) -> DrawnPool:
        data = spec.data.model_copy(update={"examples": asked.tokens * times, "seed": asked.seed})
        try:
            return draw_pool(corpus, held.chosen, data, parts, identity, end)
        except MechError as error:
            raise MechError(
                f"held-out text of run {spec.run} does not give {asked.tokens} probe tokens: {error.problem}",
                "lower discovery.tokens, or raise data.held_out",
            ) from error

    times, pool = 1, drawn(1)
    while mixed and (short := _short(pool, asked.tokens, mixed)):
        times *= 2
        if times > _MOST_TIMES:
            raise MechError(f"the pool of run {spec.run} has next to no {short}", "raise data.part_shares of that part")
        pool = drawn(times)
    counts = _counts(pool, asked.tokens, mixed) if mixed else _sizes(pool)
    return _tokens(pool, counts, numpy_generator(asked.seed, "discovery"))


def _documents(spec: RunSpec, count: int) -> Documents:
    """The corpus itself, which says of which part a document is: the store keeps that of training's documents alone."""
    documents = read_corpus(spec.corpus)
    if len(documents) != count:
        raise MechError(
            f"the corpus of run {spec.run} has {len(documents)} documents now, and had {count} when it was tokenised",
            "`mech run` its experiment: its tokens are made again",
        )
    return documents


def _mixture(spec: RunSpec) -> dict[str, float]:
    """Share of each group in the batches of training, averaged over the phases; empty: the pool's."""
    shares: dict[str, float] = {}
    for phase in spec.data.mixture:
        for name, weight in phase.weights.items():
            shares[name] = shares.get(name, 0.0) + weight / sum(phase.weights.values()) / len(spec.data.mixture)
    return shares


def _sizes(drawn: DrawnPool) -> list[int]:
    return [len(group.ids) for group in drawn.groups]


def _counts(drawn: DrawnPool, tokens: int, mixed: dict[str, float]) -> list[int]:
    """How many examples a mixture takes of each drawn group."""
    names, sizes = [group.name for group in drawn.groups], _sizes(drawn)
    shares = [0.0] * len(names)
    for name, share in mixed.items():
        inside = [index for index, one in enumerate(names) if one in members(name, names)]
        for index in inside:
            shares[index] += share * sizes[index] / sum(sizes[each] for each in inside)
    return apportion(tokens, shares)


def _short(drawn: DrawnPool, tokens: int, mixed: dict[str, float]) -> str:
    """A group that has fewer examples than the mixture takes of it; empty: none."""
    names = [group.name for group in drawn.groups]
    absent = [name for name, share in mixed.items() if share and not members(name, names)]
    taken = zip(names, _counts(drawn, tokens, mixed), _sizes(drawn), strict=True) if not absent else ()
    return next(iter([*absent, *(name for name, count, size in taken if count > size)]), "")


def _tokens(drawn: DrawnPool, counts: list[int], generator: np.random.Generator) -> DrawnTokens:
    """The first examples of each group, and a predicted token in each, uniform over all but the first."""
    taken = [(group, count) for group, count in zip(drawn.groups, counts, strict=True) if count]
    tokens = np.concatenate([group.rows.tokens(np.arange(count)) for group, count in taken]).astype(np.int64)
    periods = np.concatenate([group.rows.places.period[:count] for group, count in taken])
    position = generator.integers(1, tokens.shape[1], len(tokens))
    return DrawnTokens(
        ProbeTokens(torch.from_numpy(tokens), torch.from_numpy(position)),
        [group.name for group, count in taken for _ in range(count)],
        periods.astype(np.int64),
    )
