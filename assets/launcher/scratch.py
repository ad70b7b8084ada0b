"""One folder for all temporary files of a launch: the launcher's, its workers', their libraries'.

It goes when the launch ends. A launch that was killed with signal 9 leaves it behind, and the next one removes it. Whether its
owner is alive is asked of the kernel, by a lock that goes with the process: a process number would be given again, and those
of another container that shares the folder mean nothing here.
"""

import fcntl
import getpass
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing import util
from pathlib import Path
from typing import IO

_PREFIX, _OWNER = "mechrun-", "owner"
_LAST = -1000  # after the files of `multiprocessing`, which lie in it and insist on being there
_LONGEST = 58  # the fork server's socket lies in it, and the system allows such names 107 characters in all
_held: list[IO[str]] = []


def use_own_scratch() -> Path:
    """Temporary files of this process, and of those that it starts, lie in a folder of their own from now on.

    What launches that were killed have left beside it is removed. Called twice, it changes nothing.
    """
    if _held:
        return Path(tempfile.gettempdir())
    place = Path(tempfile.gettempdir())
    if len(str(place)) > _LONGEST:
        return place
    sweep(place)
    making = Path(tempfile.mkdtemp(prefix=".mech-", dir=place))
    owner = (making / _OWNER).open("w")  # open for as long as this process lives
    fcntl.flock(owner, fcntl.LOCK_EX)
    folder = making.rename(
        place / f"{_PREFIX}{making.name.removeprefix('.mech-')}"
    )  # seen by others only when it is locked
    _held.append(owner)
    # A cache, and worth keeping from launch to launch.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(place / f"torchinductor_{getpass.getuser()}"))
    tempfile.tempdir = os.environ["TMPDIR"] = str(folder)
    options = {"ignore_errors": True}
    util.Finalize(None, shutil.rmtree, args=(folder,), kwargs=options, exitpriority=_LAST)
    return folder


def sweep(place: Path) -> None:
    """Removes what killed launches have left."""
    for left in abandoned(place):
        shutil.rmtree(left, ignore_errors=True)


def abandoned(place: Path) -> Iterator[Path]:
    """Folders of launches of this user whose process is gone."""
    for folder in place.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            with (folder / _OWNER).open() as owner:
                fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield folder
