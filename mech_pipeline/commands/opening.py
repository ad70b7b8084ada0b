"""The store that a command asks, and a run of it opened for work."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mech_pipeline.pipeline.run import OpenRun
    from mech_pipeline.store.files.interface import Files


def existing_store() -> "Files":
    """The store's files.

    Raises:
        MechError: there is no store there.
    """
    from mech_pipeline.project import find_store
    from mech_pipeline.store.files.open import existing_files

    return existing_files(find_store())


def opened_run(run: str) -> "OpenRun":
    """A run of the store with its tokens, model and checkpoints.

    Raises:
        MechError: there is no store, or it has no such run.
    """
    from contextlib import suppress
    from pathlib import Path

    from mech_pipeline.errors import MechError
    from mech_pipeline.pipeline.run import OpenRun
    from mech_pipeline.pipeline.run_row import stored_spec
    from mech_pipeline.project import find_project
    from mech_pipeline.store.store import Store

    home, store = Path.cwd(), Store(existing_store().root)
    with suppress(MechError):  # a store can be named where no project is
        home = find_project().home
    return OpenRun(store, stored_spec(store, run).at(home))
