"""Where the store's bytes lie: a local folder, or `s3://bucket/prefix`."""

from contextlib import suppress
from pathlib import Path

from mech_pipeline.errors import MechError
from mech_pipeline.store.files.interface import Files
from mech_pipeline.store.files.local import LocalFiles
from mech_pipeline.store.files.roots import s3_endpoint, s3_root
from mech_pipeline.store.layout import DamagedMark, check_marked, check_readable


def open_files(root: Path | str) -> Files:
    """The files under a root.

    Raises:
        MechError: the root is neither a folder nor an S3 address, or has a name that cannot be read safely.
    """
    text = str(root)
    if text.startswith("s3://"):
        root = s3_root(text)
        s3_endpoint()
        from mech_pipeline.store.files.s3 import open_s3  # s3fs is loaded only by who uses it

        return open_s3(root)
    if "://" in text:
        raise MechError(
            f"store root {text} is neither a folder nor s3://bucket/prefix", "set MECH_STORE to one of these"
        )
    return LocalFiles(Path(text))


def existing_files(root: Path | str) -> Files:
    """The files of a store that is there.

    Raises:
        MechError: there is none.
    """
    files = open_files(root)
    if check_readable(files) is None:
        check_marked(files)
        raise MechError(f"there is no store at {files.root}", "`make demo` makes one, or set MECH_STORE")
    return files


def damaged_files(root: Path | str) -> Files:
    """The files of a store that is there, though perhaps without a whole mark.

    Raises:
        MechError: there is none, or it is of a newer version.
    """
    with suppress(DamagedMark):
        return existing_files(root)
    return open_files(root)
