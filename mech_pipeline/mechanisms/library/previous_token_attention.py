"""Attention to the previous token, of the head where it is largest."""

from mech_pipeline.mechanisms.induction import previous_token_attention
from mech_pipeline.mechanisms.mechanism import Mechanism
from mech_pipeline.mechanisms.source import random

MECHANISM = Mechanism(
    readout=previous_token_attention,
    data=random,
    unit="attention probability",
    meaning="attention to the previous token, best head",
)
