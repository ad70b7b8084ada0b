"""Which files a pattern names: what `glob` finds, every file once, and an error where a folder cannot be read.

`glob` goes round a link that leads back until the system stops it, gives a file under each of its names, and leaves out
folders that may not be read without a word: copies would fall on both sides of the held-out split, and documents be lost.
"""

import fnmatch
import os
import re
from collections.abc import Iterator
from pathlib import Path
from stat import S_ISREG

from mech_pipeline.errors import MechError
from mech_pipeline.system_errors import in_words

_MAGIC = re.compile(r"[*?[]")


def matching_files(pattern: str, home: Path) -> list[str]:
    """Names of the files that match, sorted, relative to `home` as the pattern is; of several names of one file the one
    without links.

    Raises:
        MechError: a folder or file cannot be looked at, or a name is not UTF-8.
    """
    once: dict[object, str] = {}
    for name in sorted(set(_expanded(pattern, home))):
        try:
            kind = (home / name).stat()
        except OSError as error:
            raise unreadable(name, error) from error
        if not S_ISREG(kind.st_mode):
            continue
        _check_name(name)
        place = (kind.st_dev, kind.st_ino, kind.st_size, kind.st_mtime_ns)  # some network drives number files badly
        if place not in once or (_through_link(once[place], home) and not _through_link(name, home)):
            once[place] = name
    return sorted(once.values())


def unreadable(name: str, error: OSError) -> MechError:
    """What the operating system said about a file of the corpus."""
    said = in_words(OSError(error.errno, error.strerror, _shown(name)))
    assert said is not None, "an OSError is one of the operating system"
    return MechError(f"corpus file {said.problem}", f"{said.next_step}; or narrow `corpus.files`")


def _shown(name: str) -> str:
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _check_name(name: str) -> None:
    """Names stand in tables, which are UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise MechError(
            f"the name of corpus file {_shown(name)} is not UTF-8", "rename it, or narrow `corpus.files`"
        ) from error


def _through_link(name: str, home: Path) -> bool:
    """Whether the file, or a folder that its name goes through, is a link."""
    path = home / name
    return any(part.is_symlink() for part in (path, *list(path.parents)[: len(Path(name).parts) - 1]))


def _expanded(pattern: str, home: Path) -> Iterator[str]:
    """What `glob.glob(pattern, root_dir=home, recursive=True)` gives, links that lead back aside."""
    begin = re.match(r"/*", pattern)
    found = [begin.group()] if begin else [""]
    parts = [part for part in pattern.split("/") if part]
    for place, part in enumerate(parts):
        last = place == len(parts) - 1
        step = _below if part == "**" else _matching if _MAGIC.search(part) else _named
        found = [name for base in found for name in step(base, part, home, last)]
    yield from found


def _named(base: str, part: str, home: Path, last: bool) -> list[str]:
    name = _joined(base, part)
    return [name] if os.path.lexists(home / name) else []


def _matching(base: str, pattern: str, home: Path, last: bool) -> list[str]:
    """Entries of a folder; those that begin with a dot only if the pattern does."""
    names = [entry.name for entry in _entries(base, home) if last or os.path.isdir(entry)]
    hidden = pattern.startswith(".")
    return [_joined(base, name) for name in fnmatch.filter(names, pattern) if hidden or not name.startswith(".")]


def _below(base: str, part: str, home: Path, last: bool) -> list[str]:
    """The folder itself and all folders below, each once; files too where the pattern ends."""
    if not os.path.isdir(home / base):
        return []
    seen: set[tuple[int, int]] = set()
    found, files, level = [base], [], [base]
    while level:  # level by level, real folders first: a link gives a folder only where nothing else does
        entries = [(name, entry) for name in level for entry in _entries(name, home)]
        entries.sort(key=lambda one: (one[1].is_symlink(), one[1].name))
        level = []
        for name, entry in entries:
            if entry.name.startswith("."):
                continue
            if not os.path.isdir(entry):  # `entry.is_dir()` raises at a link to itself
                files.append(_joined(name, entry.name))
                continue
            status = entry.stat()
            if (status.st_dev, status.st_ino) not in seen:
                seen.add((status.st_dev, status.st_ino))
                level.append(_joined(name, entry.name))
        found += level
    return found + files if last else found


def _entries(base: str, home: Path) -> list["os.DirEntry[str]"]:
    folder = home / base
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise unreadable(base or str(folder), error) from error


def _joined(base: str, name: str) -> str:
    return name if not base else f"{base}{name}" if base.endswith("/") else f"{base}/{name}"
