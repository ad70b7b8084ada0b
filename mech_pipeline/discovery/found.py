"""A cluster of tokens as a named mechanism, so that up means more formed: minus its mean loss, or what the order of the context
is worth to it.

A cluster that was found by needs has the second: its loss may have fallen long before its tokens needed what came before them
in its order, by what the last token or the words around it tell. `mech discover NAME --write RUN/CLUSTER` leaves a file with
the tokens in the project's folder of mechanisms. From then on it is a mechanism like any other, by the name of the file: in
`mechanisms`, `formation`, `ledger`, `influence`, `circuits`.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mech_pipeline.discovery.needs import another_order
from mech_pipeline.errors import MechError
from mech_pipeline.mechanisms.mechanism import Mechanism
from mech_pipeline.mechanisms.readouts.inputs import Marked
from mech_pipeline.mechanisms.readouts.predictions import loss
from mech_pipeline.mechanisms.source import ProbeSource
from mech_pipeline.training.model import next_token_losses

_ORDERS = 2
_FILE = '''"""{meaning}. Written by `mech discover`; the tokens are those of that run's tokenizer."""

from mech_pipeline.discovery.found import {maker}

MECHANISM = {maker}(
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
    sequences = _sequences(tokens)
    return Mechanism(
        readout=loss,
        data=lambda source: _marked(source, sequences),
        sign=-1,
        unit="nats",
        meaning=f"mean log-probability of the tokens of {meaning}",
        corrupted=lambda source: _disordered(source, _marked(source, sequences)),
    )


def order_mechanism(meaning: str, tokens: str | Sequence[Sequence[int]]) -> Mechanism[Marked]:
    """What the order of the context is worth to the last token of each sequence (`discovery/needs.py`).

        mean over tokens x and two orders of   L(x | the same tokens before it in another order, the last in its place)
        − mean over tokens of                  L(x | what came before)

    0: the tokens before the last might as well stand in any order. Of sequences of one token or two before the predicted one
    it is 0, because they have no other order. With its corrupted data, all in other orders, it is 0 on average.

    Args:
        meaning: what was found where.
        tokens: as of `found_mechanism`.
    """
    sequences = _sequences(tokens)
    return Mechanism(
        readout=worth_of_order,
        data=lambda source: _in_other_orders(source, sequences),
        unit="nats",
        meaning=f"what the order of the context is worth to the tokens of {meaning}",
        corrupted=lambda source: _all_disordered(source, sequences),
    )


def worth_of_order(model: nn.Module, data: Marked) -> Float[Tensor, ""]:
    """Mean loss of the marked tokens in the sequences after the first third minus that in the first third, nats."""
    losses = (next_token_losses(model, data.tokens) * data.chosen[:, 1:]).sum(1)
    own, other = losses[: len(losses) // (1 + _ORDERS)], losses[len(losses) // (1 + _ORDERS) :]
    return other.mean() - own.mean()


def mechanism_file(meaning: str, sequences: Sequence[Sequence[int]], by_needs: bool = False) -> str:
    """The source of a file that defines it.

    Args:
        by_needs: what the order of the context is worth, not the loss.
    """
    maker = order_mechanism.__name__ if by_needs else found_mechanism.__name__
    rows = "\n".join(f"    {' '.join(map(str, each))}" for each in sequences)
    return _FILE.format(meaning=meaning, maker=maker, rows=rows)


def _sequences(tokens: str | Sequence[Sequence[int]]) -> Sequence[Sequence[int]]:
    if not isinstance(tokens, str):
        return tokens
    return [[int(each) for each in line.split()] for line in tokens.split("\n") if line.strip()]


def _in_other_orders(source: ProbeSource, sequences: Sequence[Sequence[int]]) -> Marked:
    """The sequences, and behind them as many again for each other order."""
    own, generator = _marked(source, sequences), source.generator()
    others = [_another(own, generator) for _ in range(_ORDERS)]
    return Marked(torch.cat([own.tokens, *others]), own.chosen.repeat(1 + _ORDERS, 1))


def _all_disordered(source: ProbeSource, sequences: Sequence[Sequence[int]]) -> Int[Tensor, "example token"]:
    """Those of `_in_other_orders`, with yet another order in place of the sequences themselves."""
    clean, generator = _in_other_orders(source, sequences), source.generator()
    own = Marked(clean.tokens[: len(sequences)], clean.chosen[: len(sequences)])
    last = [_another(own, generator) for _ in range(1 + _ORDERS)][-1]
    return torch.cat([last, clean.tokens[len(sequences) :]])


def _another(data: Marked, generator: np.random.Generator) -> Int[Tensor, "example token"]:
    positions = data.chosen.int().argmax(1).numpy()
    return data.tokens.gather(1, torch.from_numpy(another_order(positions, data.tokens.shape[1], generator)))


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
