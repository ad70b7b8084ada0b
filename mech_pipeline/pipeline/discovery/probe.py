"""The probe tokens of a run: examples as training's own, made of held-out documents, and one predicted token in each.

Kinds and parts come in the shares that they have in the pool, or in the run's mixture, averaged over its phases.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mech_pipeline.data.drawing import DrawnPool, apportion, draw_pool
from mech_pipeline.data.tokenizer import tokenizer_identity
from mech_pipeline.discovery.probe_tokens import ProbeTokens
from mech_pipeline.errors import MechError
from mech_pipeline.mechanisms.source import Origin
from mech_pipeline.spec.mixture import members
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.spec.seeds import numpy_generator

_SPARE = 8
"""How many times more examples are drawn where a mixture asks for other shares than the pool's."""


@dataclass(frozen=True)
class DrawnTokens:
    """Probe tokens and where they are from.

    Attributes:
        groups: `tiled`, `plain`, `packed`, or with the part of the corpus before it.
        repeated: whether the token stands in a second or later copy of a tiled snippet.
    """

    probe: ProbeTokens
    groups: list[str]
    repeated: NDArray[np.bool_]


def draw_tokens(spec: RunSpec, origin: Origin) -> DrawnTokens:
    """The probe tokens that a run asks for; the same whenever they are drawn.

    Raises:
        MechError: held-out text does not hold so many examples.
    """
    asked, mixed = spec.discovery, _mixture(spec)
    examples = asked.tokens * (_SPARE if mixed else 1)
    data = spec.data.model_copy(update={"examples": examples, "seed": asked.seed})
    end = None if spec.tokenizer.end_of_text is None else origin.tokenizer.token_to_id(spec.tokenizer.end_of_text)
    held = origin.held_out
    try:
        identity = tokenizer_identity(origin.tokenizer)
        drawn = draw_pool(held.corpus, held.chosen, data, list(spec.corpus.parts), identity, end)
    except MechError as error:
        raise MechError(
            f"held-out text of run {spec.run} does not give {examples} probe examples: {error.problem}",
            "lower discovery.tokens, or raise data.held_out",
        ) from error
    return _tokens(drawn, _counts(drawn, asked.tokens, mixed), numpy_generator(asked.seed, "discovery"))


def _mixture(spec: RunSpec) -> dict[str, float]:
    """Share of each group in the batches of training, averaged over the phases; empty: the pool's."""
    shares: dict[str, float] = {}
    for phase in spec.data.mixture:
        for name, weight in phase.weights.items():
            shares[name] = shares.get(name, 0.0) + weight / sum(phase.weights.values()) / len(spec.data.mixture)
    return shares


def _counts(drawn: DrawnPool, tokens: int, mixed: dict[str, float]) -> list[int]:
    """How many examples are taken of each drawn group.

    Raises:
        MechError: of one there are not so many.
    """
    sizes = [len(group.ids) for group in drawn.groups]
    if not mixed:
        return sizes
    names = [group.name for group in drawn.groups]
    shares = [0.0] * len(names)
    for name, share in mixed.items():
        inside = [index for index, one in enumerate(names) if one in members(name, names)]
        for index in inside:
            shares[index] += share * sizes[index] / sum(sizes[each] for each in inside)
    counts = apportion(tokens, shares)
    for name, count, size in zip(names, counts, sizes, strict=True):
        if count > size:
            raise MechError(
                f"held-out text gives {size} examples of {name}, and {count} are asked for",
                "lower discovery.tokens, or raise data.part_shares of that part",
            )
    return counts


def _tokens(drawn: DrawnPool, counts: list[int], generator: np.random.Generator) -> DrawnTokens:
    """The first examples of each group, and a predicted token in each, uniform over all but the first."""
    taken = [(group, count) for group, count in zip(drawn.groups, counts, strict=True) if count]
    tokens = np.concatenate([group.rows.tokens(np.arange(count)) for group, count in taken]).astype(np.int64)
    periods = np.concatenate([group.rows.places.period[:count] for group, count in taken])
    position = generator.integers(1, tokens.shape[1], len(tokens))
    return DrawnTokens(
        ProbeTokens(torch.from_numpy(tokens), torch.from_numpy(position)),
        [group.name for group, count in taken for _ in range(count)],
        (periods > 0) & (position >= periods),
    )
