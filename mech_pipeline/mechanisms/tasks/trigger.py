"""Does a model answer with partners after the trigger, and does it copy without?

    then whisper a c f … : ?        the first letter of the answer, which the trigger alone decides: b; without it a

What follows the first letter of an answer shows its rule and is not asked for.
"""

from mech_pipeline.data.languages.trigger import OPENERS, TRIGGER, letters, partner, prompt
from mech_pipeline.mechanisms.prompts import contrasts
from mech_pipeline.mechanisms.readouts.inputs import Contrast
from mech_pipeline.mechanisms.source import ProbeSource

PROMPTS = 64


def triggered(source: ProbeSource) -> Contrast:
    """Prompts with the trigger: the partner of the first letter against the letter.

    Raises:
        MechError: a letter is not one token in this vocabulary, or a prompt does not fit the context.
    """
    said = _said(source)
    return contrasts(source, [(prompt(TRIGGER, each), f" {partner(each[0])}", f" {each[0]}") for each in said])


def untriggered(source: ProbeSource) -> Contrast:
    """The same without the trigger: the first letter against its partner.

    Raises:
        MechError: as `triggered`.
    """
    said = zip(_openers(), _said(source), strict=True)
    return contrasts(source, [(prompt(opener, each), f" {each[0]}", f" {partner(each[0])}") for opener, each in said])


def _openers() -> list[str]:
    """Of the prompts without the trigger."""
    return [OPENERS[number % len(OPENERS)] for number in range(PROMPTS)]


def pairs(source: ProbeSource) -> Contrast:
    """Prompts with the trigger, then the same ones without it: the partner of the first letter against the letter, in both.

    Raises:
        MechError: as `triggered`.
    """
    said = zip([TRIGGER] * PROMPTS + _openers(), 2 * _said(source), strict=True)
    return contrasts(source, [(prompt(opener, each), f" {partner(each[0])}", f" {each[0]}") for opener, each in said])


def _said(source: ProbeSource) -> list[str]:
    generator = source.generator()
    return [letters(generator) for _ in range(PROMPTS)]
