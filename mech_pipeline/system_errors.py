"""Errors of the operating system in words: what could not be done, to which file, and what helps."""

import errno
from collections.abc import Iterator

from mech_pipeline.errors import MechError

_WORDS: dict[int, tuple[str, str]] = {
    errno.ENOENT: ("does not exist", "check the name, and that its folder is there"),
    errno.EACCES: ("may not be read or written by this user", "change its permissions, or name another place"),
    errno.EPERM: ("may not be changed by this user", "change its owner or permissions, or name another place"),
    errno.EROFS: ("lies on a file system that is read-only", "name a place that can be written"),
    errno.ENOSPC: (
        "has no space left: the disk is full; what was stored before is whole",
        "free space, and run it again",
    ),
    errno.EDQUOT: ("has no space left: the quota is used up", "free space, and run it again"),
    errno.EISDIR: ("is a folder, and a file was expected", "name a file in it"),
    errno.ENOTDIR: ("goes through a file as if it were a folder", "check the path"),
    errno.EEXIST: ("is there already and is no folder", "remove it, or name another place"),
    errno.ENOTEMPTY: ("is a folder that is not empty", "empty it, or name another place"),
    errno.ENAMETOOLONG: ("is too long a name for this file system", "use a shorter one"),
    errno.ELOOP: ("is a symbolic link that leads back to itself", "mend the link, or name another place"),
    errno.EINVAL: ("is not possible on this file system", "name another place"),
    errno.EBUSY: ("is in use", "close what uses it, and run it again"),
    errno.ETXTBSY: ("is a program that runs", "end it, and run it again"),
    errno.EMFILE: ("cannot be opened: this process has too many open files", "raise the limit: ulimit -n 4096"),
    errno.ENFILE: ("cannot be opened: the machine has too many open files", "close programs, and run it again"),
    errno.EIO: ("cannot be read or written: the disk reports an error", "check the disk, then `mech verify`"),
    errno.EFBIG: (
        "would be larger than this file system or `ulimit -f` allows",
        "raise the limit, or name another place",
    ),
    errno.ENXIO: ("is a device or pipe that nobody serves", "name a file"),
    errno.ENODEV: ("is no device of this machine", "name a file"),
    errno.EADDRINUSE: ("is an address that another program uses", "end that program, or take another port"),
    errno.ENOMEM: ("needs more memory than is free", "use fewer --workers, or a machine with more memory"),
    errno.ENOLCK: ("lies on a file system without locks", "name a place on a local disk"),
    errno.ESTALE: ("is gone from its network file system", "mount it again, and run it again"),
    errno.ECONNREFUSED: ("does not answer", "check the address and the network"),
    errno.ETIMEDOUT: ("did not answer in time", "check the network, and run it again"),
}


def in_words(error: BaseException) -> MechError | None:
    """The error as a sentence, if the operating system is what failed; none otherwise.

    It is looked for in what the error came from, because libraries wrap it.

    >>> print(in_words(IsADirectoryError(errno.EISDIR, "Is a directory", "/data")))
    /data is a folder, and a file was expected → name a file in it
    """
    found = next((each for each in _origins(error) if isinstance(each, OSError)), None)
    if found is None:
        return None
    names = " → ".join(str(name) for name in (found.filename, found.filename2) if name is not None)
    subject = names or "what was asked for"
    if found.errno not in _WORDS:
        problem = found.strerror or str(found) or type(found).__name__
        return MechError(f"{subject}: {problem}", "check the path and the permissions, and run it again")
    problem, next_step = _WORDS[found.errno]
    return MechError(f"{subject} {problem}", next_step)


def _origins(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
