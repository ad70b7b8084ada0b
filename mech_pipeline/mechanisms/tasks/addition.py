"""Sums of pairs that no run trains on: right against the next number."""

from mech_pipeline.data.languages.addition import MODULUS, never_trained, number, prompt, trained
from mech_pipeline.mechanisms.prompts import contrasts
from mech_pipeline.mechanisms.readouts.inputs import Contrast
from mech_pipeline.mechanisms.source import ProbeSource


def unseen_sums(source: ProbeSource) -> Contrast:
    """Pairs that are never trained on.

    Raises:
        MechError: a number is not one token in this vocabulary, or a prompt does not fit the context.
    """
    return _contrast(source, never_trained())


def seen_sums(source: ProbeSource) -> Contrast:
    """Pairs that are trained on whatever the share, as long as that is at least a fifth.

    Raises:
        MechError: as `unseen_sums`.
    """
    return _contrast(source, trained(0.2))


def _contrast(source: ProbeSource, pairs: list[tuple[int, int]]) -> Contrast:
    texts = [(prompt(one, two), f" {number(one + two)}", f" {number((one + two + 1) % MODULUS)}") for one, two in pairs]
    return contrasts(source, texts)
