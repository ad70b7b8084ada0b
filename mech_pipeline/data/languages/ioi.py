"""Sentences with an indirect object: two people are named, one of them again, and the other is the last word.

    When Mary and John went to the store, John gave a drink to Mary.
         IO       S1                      S2                   IO

Templates vary in length, words and order of the names: ABBA (indirect object first) and BABA; some name a third person,
who is no candidate for the last word. Nothing but who was named twice says who comes last.
Source: Wang et al. 2022, §2 and appendix A (templates, ABC prompts).
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

NAMES = (
    *("Mary", "John", "Alice", "Bob", "Carol", "David", "Emma", "Frank", "Grace", "Henry", "Irene", "Jack"),
    *("Kate", "Liam", "Nora", "Oscar", "Paul", "Quinn", "Rose", "Sam", "Tina", "Victor", "Wendy", "Adam"),
    *("Bella", "Chris", "Diana", "Eric", "Fiona", "George"),
)
PLACES = ("store", "park", "school", "office", "garden", "station", "market", "museum")
OBJECTS = ("drink", "book", "ring", "letter", "kiss", "basket", "ticket", "coat")
TEMPLATES = (
    "When {a} and {b} went to the {place}, {s} gave a {object} to",
    "After {a} and {b} met at the {place}, {s} handed a {object} to",
    "While {a} and {b} were working at the {place}, {s} passed a {object} to",
    "Then {a} and {b} had a long day at the {place}, and in the evening {s} sent a {object} to",
    "Because {a} and {b} forgot the keys of {c} at the {place}, {s} lent a {object} to",
    "Friends of {c} saw that {a} and {b} left the {place} early, and {s} brought a {object} to",
)
ORDERS = ("ABBA", "BABA")


@dataclass(frozen=True)
class Sentence:
    """One sentence.

    Attributes:
        order: ABBA: the indirect object is named first; BABA: the subject.
        again: the name in the place of the subject's second mention; another than the subject's in an ABC prompt, whose
            last word nothing determines.
    """

    template: str
    order: Literal["ABBA", "BABA"]
    indirect_object: str
    subject: str
    again: str
    bystander: str
    place: str
    object: str

    @property
    def prompt(self) -> str:
        """Everything before the last word."""
        first, second = self.indirect_object, self.subject
        if self.order == "BABA":
            first, second = second, first
        return self.template.format(
            a=first, b=second, c=self.bystander, s=self.again, place=self.place, object=self.object
        )

    @property
    def text(self) -> str:
        """The whole sentence."""
        return f"{self.prompt} {self.indirect_object}."


def sentence(generator: np.random.Generator, template: str | None = None, order: str | None = None) -> Sentence:
    """A random sentence, uniform over everything that is not given."""
    names = [NAMES[index] for index in generator.choice(len(NAMES), 3, replace=False)]
    return Sentence(
        template or TEMPLATES[generator.integers(len(TEMPLATES))],
        order or ORDERS[generator.integers(2)],  # type: ignore[arg-type]  # one of the two
        *(names[0], names[1], names[1], names[2]),
        PLACES[generator.integers(len(PLACES))],
        OBJECTS[generator.integers(len(OBJECTS))],
    )


def without_answer(clean: Sentence, generator: np.random.Generator) -> Sentence:
    """The same sentence with three other names in the places of IO, S1 and S2: an ABC prompt, which determines no answer."""
    others = [name for name in NAMES if name not in (clean.indirect_object, clean.subject, clean.bystander)]
    drawn = [others[index] for index in generator.choice(len(others), 3, replace=False)]
    return replace(clean, indirect_object=drawn[0], subject=drawn[1], again=drawn[2])


def document(generator: np.random.Generator) -> str:
    """One sentence."""
    return sentence(generator).text
