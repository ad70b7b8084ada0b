"""Attention to the previous token, of the head where it is largest."""

from mech_pipeline.mechanisms.mechanism import Mechanism
from mech_pipeline.mechanisms.source import random
from mech_pipeline.mechanisms.tasks.induction import previous_token_attention

MECHANISM = Mechanism(
    readout=previous_token_attention,
    data=random,
    unit="attention probability",
    meaning="attention to the previous token, best head",
)
