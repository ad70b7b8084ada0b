"""Induction as what it is worth to the model: loss on a first copy against loss on its repetition."""

from mech_pipeline.mechanisms.mechanism import Mechanism
from mech_pipeline.mechanisms.sequences import Sequences
from mech_pipeline.mechanisms.source import random, tiled
from mech_pipeline.mechanisms.tasks.induction import copy_advantage, without_repetition

MECHANISMS: dict[str, Mechanism[Sequences]] = {
    "induction_copy_advantage": Mechanism(
        readout=copy_advantage,
        data=tiled,
        unit="nats",
        meaning="loss on the first copy minus loss on the repetition, held-out text",
        corrupted=lambda source: without_repetition(source.tiled),
    ),
    # No statistics of text help on random tokens, only copying does.
    "induction_copy_advantage_random": Mechanism(
        readout=copy_advantage,
        data=random,
        unit="nats",
        meaning="loss on the first copy minus loss on the repetition, random tokens",
        corrupted=lambda source: without_repetition(source.random),
    ),
}
