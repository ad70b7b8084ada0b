"""A cluster of tokens as a named mechanism: minus its mean loss, so that up means more formed.

`mech discover NAME --write RUN/CLUSTER` leaves a file with the tokens in the project's folder of mechanisms. From then on it is a
mechanism like any other, by the name of the file: in `mechanisms`, `formation`, `ledger`, `influence`, `circuits`.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from mech_pipeline.errors import MechError
from mech_pipeline.mechanisms.mechanism import Mechanism
from mech_pipeline.mechanisms.readouts.inputs import Marked
from mech_pipeline.mechanisms.readouts.predictions import loss
from mech_pipeline.mechanisms.source import ProbeSource

_FILE = '''"""{meaning}. Written by `mech discover`; the tokens are those of that run's tokenizer."""

from mech_pipeline.discovery.found import found_mechanism

MECHANISM = found_mechanism(
    "{meaning}",
    """
{rows}
    """,  # noqa: E501
)
'''


def found_mechanism(meaning: str, tokens: str | Sequence[Sequence[int]]) -> Mechanism[Marked]:
    """The mean log-probability of the last token of each sequence.

    Its corrupted data have the same tokens before the predicted one in another order.

    Args:
        meaning: what was found where.
        tokens: sequences of token ids, of any lengths from 2 on; or a line of text for each.
    """
    lines = tokens.split("\n") if isinstance(tokens, str) else ()
    written = [[int(each) for each in line.split()] for line in lines if line.strip()]
    sequences = written if isinstance(tokens, str) else tokens
    return Mechanism(
        readout=loss,
        data=lambda source: _marked(source, sequences),
        sign=-1,
        unit="nats",
        meaning=f"mean log-probability of the tokens of {meaning}",
        corrupted=lambda source: _disordered(source, _marked(source, sequences)),
    )


def mechanism_file(meaning: str, sequences: Sequence[Sequence[int]]) -> str:
    """The source of a file that defines it."""
    return _FILE.format(meaning=meaning, rows="\n".join(f"    {' '.join(map(str, each))}" for each in sequences))


def _marked(source: ProbeSource, sequences: Sequence[Sequence[int]]) -> Marked:
    """Sequences of one length; what fills them up stands behind the predicted token, which does not see it."""
    longest, largest = max(map(len, sequences)), max(max(each) for each in sequences)
    if longest > source.context or largest >= source.vocabulary:
        raise MechError(
            f"its sequences of up to {longest} tokens from a vocabulary of more than {largest} do not fit this run",
            f"which has {source.context} and {source.vocabulary}: take a cluster that was found in a run like it",
        )
    tokens = torch.zeros(len(sequences), longest, dtype=torch.long)
    chosen = torch.zeros(len(sequences), longest, dtype=torch.bool)
    for row, each in enumerate(sequences):
        tokens[row, : len(each)] = torch.tensor(list(each))
        chosen[row, len(each) - 1] = True
    return Marked(tokens, chosen)


def _disordered(source: ProbeSource, data: Marked) -> Int[Tensor, "example token"]:
    tokens, generator = data.tokens.clone(), source.generator()
    for row, last in enumerate(data.chosen.int().argmax(1).tolist()):
        order = torch.from_numpy(generator.permutation(last))
        tokens[row, :last] = tokens[row, :last][order]
    return tokens
