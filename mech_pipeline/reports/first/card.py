"""A card of the first page: one question, one number, and sentences that say what the number is of."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Line:
    """A sentence under the number, with a badge in front where its reliability was judged.

    Attributes:
        badge: text of the badge; empty: none.
        good: how the badge looks; none: not known.
    """

    text: str
    badge: str = ""
    good: bool | None = None


@dataclass(frozen=True)
class Card:
    """One answer.

    Attributes:
        number: the answer in a few characters; a dash where there is none yet.
        anchor: of the section that says more.
    """

    question: str
    number: str
    anchor: str
    lines: list[Line] = field(default_factory=list)
