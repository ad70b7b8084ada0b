"""The store that a command asks."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mech_pipeline.store.files.interface import Files


def existing_store() -> "Files":
    """The store's files.

    Raises:
        MechError: there is no store there.
    """
    from mech_pipeline.project import find_store
    from mech_pipeline.store.files.open import existing_files

    return existing_files(find_store())
