"""Every mechanism and detector by name.

Mechanisms are found: see `discovery.py` and docs/mechanisms.md. A detector is a function in `heads.py`, `composition.py`,
`pairs.py`, `ioi.py`, `brackets.py` or `sums.py` and a line here. Raise `version` when the numbers change: exactly that mechanism
or detector is recomputed.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from mech_pipeline.mechanisms.chosen import CHOSEN
from mech_pipeline.mechanisms.detectors import composition, heads, pairs
from mech_pipeline.mechanisms.discovery import discover
from mech_pipeline.mechanisms.mechanism import Mechanism
from mech_pipeline.mechanisms.probe import Probe
from mech_pipeline.mechanisms.source import ProbeSource
from mech_pipeline.mechanisms.tasks import brackets, ioi, python_brackets, sums
from mech_pipeline.training.bridge_type import TransformerBridge


@dataclass(frozen=True)
class Detector:
    """A score per attention head, [layer, head]."""

    score: Callable[[TransformerBridge, list[Tensor], Probe], Float[Tensor, "layer head"]]
    unit: str
    meaning: str
    version: str = "1"
    data: tuple[str, Callable[[ProbeSource], Any]] | None = None
    """Name and maker of probe data of its own, of the run's tokenizer or text; none: it reads the random sequences."""

    @property
    def reads_text(self) -> bool:
        """Whether its probe data may depend on more than the stored probe: on tokenizer and held-out text."""
        return self.data is not None


class Mechanisms(Mapping[str, Mechanism[Any]]):
    """The mechanisms of the package and of one folder, by name; files are read once, when a name is first asked for."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._found: dict[str, Mechanism[Any]] | None = None

    def loaded(self) -> dict[str, Mechanism[Any]]:
        """All of them.

        Raises:
            MechError: a file of the project cannot be used; it is named, with the line.
        """
        if self._found is None or self._folder != CHOSEN.folder:
            self._folder = CHOSEN.folder
            self._found = discover(self._folder)
        return self._found

    def __getitem__(self, name: str) -> Mechanism[Any]:
        return self.loaded()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.loaded())

    def __len__(self) -> int:
        return len(self.loaded())


MECHANISMS = Mechanisms()

_BEYOND = "attention beyond chance"

DETECTORS: dict[str, Detector] = {
    "previous_token": Detector(heads.previous_token, "attention probability", "mean attention from i to i − 1"),
    "duplicate_token": Detector(heads.duplicate_token, "attention probability", "mean attention to earlier copies"),
    "prefix_matching": Detector(
        heads.prefix_matching, "attention probability", "mean attention to what followed earlier copies (induction)"
    ),
    "copying": Detector(heads.copying, "share in [−1, 1]", "OV circuit raises the attended token's logit"),
    "copy_suppression": Detector(
        heads.copy_suppression, "share in [−1, 1]", "OV circuit puts the attended token's logit at the bottom"
    ),
    "prefix_matching_2": Detector(
        pairs.prefix_matching_2,
        "attention probability",
        "mean attention to what followed earlier occurrences of the same two tokens",
        data=pairs.PAIRS,
    ),
    **{
        f"{letter}_composition": Detector(
            score, "composition score beyond chance", f"how well a head's {name} read what one earlier head writes"
        )
        for letter, name, score in (
            ("k", "keys", composition.k_composition),
            ("q", "queries", composition.q_composition),
            ("v", "values", composition.v_composition),
        )
    },
    "bracket_matching": Detector(
        brackets.matching,
        "attention probability",
        "attention to the bracket that is to be closed, minus that to a decoy of its depth",
        data=brackets.CLOSINGS,
    ),
    "bracket_knockout": Detector(
        brackets.knockout, "nats", "loss of the bracket logit difference without that attention", data=brackets.CLOSINGS
    ),
    "python_bracket_matching": Detector(
        partial(brackets.matching, asked=python_brackets.MORE_CLOSINGS),
        "attention probability",
        "attention to the bracket that is to be closed, minus that to a closed one of equal depth and distance; Python",
        data=python_brackets.MORE_CLOSINGS,
    ),
    "python_bracket_knockout": Detector(
        partial(brackets.knockout, asked=python_brackets.MORE_CLOSINGS),
        "nats",
        "loss of the bracket logit difference without that attention; Python",
        data=python_brackets.MORE_CLOSINGS,
    ),
    "carry_knockout": Detector(
        sums.knockout,
        "nats",
        "loss of the carry's logit difference without attention to the digits that are added",
        data=sums.CARRIES,
    ),
    **{
        f"ioi_{name}": Detector(score, unit, meaning, data=ioi.PROMPTS)
        for name, score, unit, meaning in (
            ("name_mover", ioi.name_mover, _BEYOND, "attention from the end of an IOI prompt to the indirect object"),
            ("s_inhibition", ioi.s_inhibition, _BEYOND, "attention from the end to the subject's second mention"),
            ("duplicate_token", ioi.duplicate, _BEYOND, "attention from the subject's second mention to its first"),
            ("induction", ioi.induction, _BEYOND, "attention from the second mention to what followed the first"),
            ("previous_token", ioi.previous, _BEYOND, "attention from what follows the first mention to it"),
            (
                "name_copying",
                ioi.name_copying,
                "share in [−1, 1]",
                "OV circuit raises names to the top; below 0: lowers",
            ),
            ("direct_effect", ioi.direct_effect, "nats", "what a head adds directly to the IOI logit difference"),
        )
    },
}
