"""Languages that are made up: each document is drawn by a random stream of its own.

A language is a module with `document(generator)`, and a line here.
"""

from collections.abc import Callable

import numpy as np

from mech_pipeline.data.languages import dyck, ioi

LANGUAGES: dict[str, Callable[[np.random.Generator], str]] = {"dyck": dyck.document, "ioi": ioi.document}
