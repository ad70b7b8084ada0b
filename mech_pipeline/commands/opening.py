"""The store that a command asks."""

from typing import TYPE_CHECKING

from mech_pipeline.errors import MechError

if TYPE_CHECKING:
    from mech_pipeline.store.files.interface import Files


def existing_store() -> "Files":
    """The store's files.

    Raises:
        MechError: there is no store there.
    """
    from mech_pipeline.project import find_store
    from mech_pipeline.store.files.open import open_files
    from mech_pipeline.store.layout import check_readable

    files = open_files(find_store())
    if check_readable(files) is None:
        raise MechError(f"there is no store at {files.root}", "`make demo` makes one, or set MECH_STORE")
    return files
