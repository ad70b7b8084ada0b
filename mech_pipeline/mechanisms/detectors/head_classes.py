"""Classes of attention heads in the IOI circuit, and since when a head has belonged to one.

A head is of a class at a checkpoint if every score that the class asks for is past its bound; it has been since the first
checkpoint from which on it always is, up to the last one looked at. A class without a head is absent: small models solve the
task with fewer classes than GPT-2 small has. Membership describes attention, copying and direct effect. Whether other
heads read what a head writes is in the circuit's edges.
The bounds are ours, no paper gives numbers: scores of attention have chance taken off (0: uniform, 1: all), and 0.3 is
low, so that "absent" says something. In the experiment heads score above 0.8 or below 0.2 with few in between.
Source: Wang et al. 2022, §3 (classes); Tigges et al. 2024, §3 (the same classes over training).
"""

from collections.abc import Iterable
from dataclasses import dataclass

ATTENDS, COPIES = 0.3, 0.3
Head = tuple[int, int]


@dataclass(frozen=True)
class HeadClass:
    """What heads of a class score.

    Attributes:
        at_least, at_most: bounds of detectors' scores.
        does: what such a head does, in half a sentence.
    """

    name: str
    does: str
    at_least: dict[str, float]
    at_most: dict[str, float]

    @property
    def detectors(self) -> set[str]:
        """All scores it asks for."""
        return {*self.at_least, *self.at_most}

    def holds(self, scores: dict[str, float]) -> bool:
        """Whether a head with these scores is of the class."""
        return all(scores[name] >= bound for name, bound in self.at_least.items()) and all(
            scores[name] <= bound for name, bound in self.at_most.items()
        )


IOI_CLASSES = (
    HeadClass(
        "name mover",
        "looks from the end at the indirect object and raises its logit",
        {"ioi_name_mover": ATTENDS, "ioi_name_copying": COPIES, "ioi_direct_effect": 0.0},
        {},
    ),
    HeadClass(
        "negative name mover",
        "looks from the end at the indirect object and lowers its logit",
        {"ioi_name_mover": ATTENDS},
        {"ioi_name_copying": -COPIES, "ioi_direct_effect": 0.0},
    ),
    HeadClass("S-inhibition", "looks from the end at the subject's second mention", {"ioi_s_inhibition": ATTENDS}, {}),
    HeadClass("duplicate token", "looks from the second mention at the first", {"ioi_duplicate_token": ATTENDS}, {}),
    HeadClass("induction", "looks from the second mention at what followed the first", {"ioi_induction": ATTENDS}, {}),
    HeadClass("previous token", "looks from what follows the first mention at it", {"ioi_previous_token": ATTENDS}, {}),
)


def members(head_class: HeadClass, scores: Iterable[tuple[int, int, int, str, float]]) -> dict[Head, int]:
    """The heads of a class at the last checkpoint: (layer, head) → the step since which they have been.

    Args:
        scores: (step, layer, head, detector, value) of one run.
    """
    at: dict[int, dict[Head, dict[str, float]]] = {}
    for step, layer, head, detector, value in scores:
        if detector in head_class.detectors:
            at.setdefault(step, {}).setdefault((layer, head), {})[detector] = value
    since: dict[Head, int] = {}
    for step in sorted(at):
        now = {
            head for head, found in at[step].items() if head_class.detectors <= set(found) and head_class.holds(found)
        }
        since = {head: since.get(head, step) for head in sorted(now)}
    return since
