"""A section of the report: what its template is given, and the figures it shows. Every topic makes this one type.

A section is a function from a `Study` to a `Section`, a template beside it, and an entry in `page.SECTIONS`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from matplotlib.figure import Figure


@dataclass(frozen=True)
class Section:
    """One heading of the page and what stands below it.

    Attributes:
        anchor: the heading's id: where a link into the page leads.
        template: path below `reports/`.
        context: what the template is given, its figures aside.
        figures: by file name; the template shows them by that name.
        empty: whether it only says that there is nothing: it is folded then, and comes last.
    """

    anchor: str
    title: str
    template: str
    context: Mapping[str, Any] = field(default_factory=dict)
    figures: Mapping[str, Figure] = field(default_factory=dict)
    empty: bool = False
