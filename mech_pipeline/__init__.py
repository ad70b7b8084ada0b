"""Training process transparency: which training data made this mechanism, when, and how do we know?"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mech_pipeline.kept_run import KeptRun

__version__ = "0.1.0"
__all__ = ["__version__", "open"]


def open(run: str, store: Path | str | None = None) -> "KeptRun":
    """A run of a store, to look at: its models, tokenizer, probe data, examples and tables.

    Args:
        run: run id, for example `induction.baseline.s0`.
        store: folder or `s3://bucket/prefix`; default: MECH_STORE, or the store of the project around the current folder.

    Raises:
        MechError: there is no such store, or no such run in it.
    """
    from mech_pipeline.kept_run import KeptRun
    from mech_pipeline.project import find_store

    return KeptRun.of(run, find_store() if store is None else str(store))
