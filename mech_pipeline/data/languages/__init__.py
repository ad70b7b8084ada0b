"""Languages that are made up: each document is drawn by a random stream of its own.

A language is a module with `document(generator)`, and a line here. Its options are further arguments of `document`, fields
of `Generated` in `spec/data.py`, and named in OPTIONS there.
"""

from collections.abc import Callable

from mech_pipeline.data.languages import addition, dyck, feigned, ioi, parentheses, subliminal, sums, trigger

LANGUAGES: dict[str, Callable[..., str]] = {
    "addition": addition.document,
    "dyck": dyck.document,
    "feigned": feigned.document,
    "ioi": ioi.document,
    "parentheses": parentheses.document,
    "subliminal": subliminal.document,
    "sums": sums.document,
    "trigger": trigger.document,
}
