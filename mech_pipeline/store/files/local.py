"""A local folder: written aside, flushed, renamed; locks are `flock`, which the system frees with the process."""

import fcntl
import os
import shutil
import stat
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import duckdb

from mech_pipeline.errors import MechError
from mech_pipeline.store.files.interface import Entry, Files, readable_storage_errors
from mech_pipeline.store.files.roots import local_root, plain_name

_READ_ONLY = 0o444


class LocalFiles(Files):
    """Files under a local folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = local_root(str(folder))
        self.root = self.scratch = str(self.folder)
        self._plain_root = plain_name(self.folder)

    def sql_url(self, name: str) -> str:
        return f"{self._plain_root}/{name}"

    def local_path(self, name: str) -> Path:
        return self.folder / name

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def write(self, name: str, content: bytes) -> None:
        with readable_storage_errors(self.root):
            write_whole(self.folder / name, content)

    def put(self, local: Path, name: str) -> None:
        target = self.folder / name
        with readable_storage_errors(self.root):
            target.parent.mkdir(parents=True, exist_ok=True)
            aside = _aside(target)
            try:
                shutil.move(local, aside)  # a rename where the temporary file lies on the same disk
                _flush(aside)
                aside.replace(target)
            finally:
                aside.unlink(missing_ok=True)
            _flush(target.parent)

    def info(self, name: str) -> Entry | None:
        try:
            found = (self.folder / name).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return Entry(name, found.st_size, found.st_mtime)

    def marks(self, names: Sequence[str]) -> list[tuple[int, int] | None]:
        return [_mark(f"{self.root}/{name}") for name in names]

    def entries(self, folder: str = "") -> Iterator[Entry]:
        """Through links too (a bigger disk); a folder of two names is met once, by its own where it has one."""
        own, seen = [self.folder / folder if folder else self.folder], set[tuple[int, int]]()
        linked: list[Path] = []
        while own or linked:
            for path, found in _inside((own or linked).pop(), seen):
                if not stat.S_ISDIR(found.st_mode):
                    yield Entry(path.relative_to(self.folder).as_posix(), found.st_size, found.st_mtime)
                elif path.is_symlink():
                    linked.append(path)
                else:
                    own.append(path)

    def names(self, folder: str, after: str = "") -> list[str]:
        try:
            with os.scandir(self.folder / folder) as found:
                return sorted(entry.name for entry in found if entry.name > after and entry.is_file())
        except FileNotFoundError:
            return []

    def remove(self, names: Sequence[str]) -> None:
        for name in names:
            path = self.folder / name
            path.unlink(missing_ok=True)
            if name.startswith("blobs/"):
                with suppress(OSError):  # not empty; each blob has a folder of its own
                    path.parent.rmdir()

    def seal(self, names: Sequence[str]) -> None:
        with readable_storage_errors(self.root):
            paths = [self.folder / name for name in names]
            for path in paths:
                _flush(path)
                path.chmod(_READ_ONLY)
            for folder in {path.parent for path in paths}:
                _flush(folder)

    @contextmanager
    def lock(self, name: str, doing: str) -> Iterator[None]:
        path = self.folder / "locks" / f"{name}.lock"
        with readable_storage_errors(self.root):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("a+")
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                holder = file.read().strip() or "another process"
                raise MechError(
                    f"cannot {doing}: {holder} is writing it", "wait for it, or stop it, and run again"
                ) from error
            file.truncate(0)
            file.write(f"process {os.getpid()}")
            file.flush()
            yield

    def make_readable(self, connection: duckdb.DuckDBPyConnection, sizes: dict[str, int]) -> None:
        """Nothing to prepare: DuckDB reads local files itself."""


def _inside(folder: Path, seen: set[tuple[int, int]]) -> Iterator[tuple[Path, os.stat_result]]:
    """What lies in a folder that was not seen before."""
    with suppress(FileNotFoundError, NotADirectoryError):
        status = folder.stat()
        if (status.st_dev, status.st_ino) not in seen:
            seen.add((status.st_dev, status.st_ino))
            for path in sorted(folder.iterdir()):
                with suppress(OSError):  # a temporary file of a running writer, a link to nothing or to itself
                    yield path, path.stat()


def _mark(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # a third of the time of `Path.stat`, and readers ask for every file at each look
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_size, found.st_mtime_ns


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file so that a reader sees either the old or the whole new content, also after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = _aside(path)
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    _flush(path.parent)


def _aside(path: Path) -> Path:
    return path.with_name(f"{path.name}.tmp-{os.getpid()}-{uuid.uuid4().hex[:6]}")


def _flush(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
