"""Which of two rules a model that labels brackets goes by, where training cannot tell them apart.

    judge ( ( ) ) … yes | no        in distribution both rules give the same label
    judge ) ( ( ) … ?               out of distribution, equal counts but not nested: nested says no, equal count yes

Sequences are drawn anew by the probe's stream; a nested one may occur in training too, those that the rules disagree on
cannot, unless the language's option asks for them.
Source: Wang & Murfet 2026; Li et al. 2025.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mech_pipeline.data.languages import parentheses
from mech_pipeline.data.languages.parentheses import NO, YES
from mech_pipeline.mechanisms.prompts import contrasts
from mech_pipeline.mechanisms.readouts.inputs import Contrast
from mech_pipeline.mechanisms.source import ProbeSource

SEQUENCES = 48


def labelled(source: ProbeSource) -> Contrast:
    """Sequences as in training, half of them nested: the right label against the other.

    Raises:
        MechError: a label is not one token in this vocabulary, or a sequence does not fit the context.
    """
    generator = source.generator()
    drawn = [
        draw(generator) for draw in (parentheses.nested_word, parentheses.unequal_word) for _ in range(SEQUENCES // 2)
    ]
    return _contrast(source, [(brackets, parentheses.label(brackets, "nested")) for brackets in drawn])


def disagreeing(source: ProbeSource) -> Contrast:
    """Sequences of equal counts that are not nested: the label of the nested rule, no, against that of equal count, yes.

    Raises:
        MechError: a label is not one token in this vocabulary, or a sequence does not fit the context.
    """
    generator = source.generator()
    return _contrast(source, [(parentheses.disagreeing_word(generator), NO) for _ in range(SEQUENCES)])


def disagreeing_inside(source: ProbeSource) -> Contrast:
    """The same, of sequences that begin with an opener and end with a closer, as every nested one does.

    A model that labels no whatever begins or ends wrongly goes by neither rule, and still seems to prefer nested where
    half of the sequences do. Here neither end tells.

    Raises:
        MechError: a label is not one token in this vocabulary, or a sequence does not fit the context.
    """
    generator = source.generator()
    found: list[tuple[str, str]] = []
    while len(found) < SEQUENCES:
        brackets = parentheses.disagreeing_word(generator)
        if brackets.startswith("(") and brackets.endswith(")"):
            found.append((brackets, NO))
    return _contrast(source, found)


def label_share(model: nn.Module, data: Contrast) -> Float[Tensor, ""]:
    """Share of sequences whose correct label has the larger logit of the two. A step function: it has no gradient."""
    example = torch.arange(len(data.tokens), device=data.tokens.device)
    logits = model(data.tokens)[example, data.position]
    return (logits[example, data.correct] > logits[example, data.wrong]).float().mean()


def _contrast(source: ProbeSource, labelled: list[tuple[str, str]]) -> Contrast:
    other = {YES: NO, NO: YES}
    texts = [(parentheses.prompt(brackets), f" {label}", f" {other[label]}") for brackets, label in labelled]
    return contrasts(source, texts)
