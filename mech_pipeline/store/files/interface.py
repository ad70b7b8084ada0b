"""What every place for the store's bytes can do, and faults of such places in words. `open.py` opens them.

Names are relative to the root, with forward slashes. Whatever is written appears whole or not at all.
"""

import errno
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
from deltalake.exceptions import DeltaError

from mech_pipeline.errors import MechError

S3_SETTINGS = "AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"


@dataclass(frozen=True)
class Entry:
    """A file: name under the root, size in bytes, time of the last write in seconds since 1970."""

    name: str
    bytes: int
    modified: float


class Files(ABC):
    """Files under one root.

    Attributes:
        root: absolute folder, or `s3://bucket/prefix`, without a slash at the end.
        delta_options: what `deltalake` needs to reach the same place.
        scratch: folder for unfinished local files; none: wherever the system keeps them.
        parallel: how many files are best read at the same time.
    """

    root: str
    parallel: int = 2
    delta_options: dict[str, str] | None = None
    scratch: str | None = None

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.root == self.root

    def __hash__(self) -> int:
        return hash(self.root)

    def url(self, name: str) -> str:
        """What deltalake and people open."""
        return f"{self.root}/{name}"

    def sql_url(self, name: str) -> str:
        """What DuckDB opens, which reads patterns and columns in names."""
        return self.url(name)

    def local_path(self, name: str) -> Path | None:
        """The file itself, where files lie on this machine; none where they must be fetched."""
        return None

    @abstractmethod
    def read(self, name: str) -> bytes:
        """The whole content.

        Raises:
            FileNotFoundError: there is no such file.
        """

    @abstractmethod
    def write(self, name: str, content: bytes) -> None:
        """Writes a file so that a reader sees the old or the whole new content, and it survives a power cut."""

    @abstractmethod
    def put(self, local: Path, name: str) -> None:
        """Moves (or uploads) a finished local file of any size to a name."""

    @abstractmethod
    def info(self, name: str) -> Entry | None:
        """Size and time of a file; none if there is no such file."""

    def marks(self, names: Sequence[str]) -> list[tuple[int, int] | None]:
        """Size in bytes and time of the last write in nanoseconds of many files; none of those that are gone."""
        found = map(self.info, names)
        return [None if each is None else (each.bytes, int(each.modified * 1e9)) for each in found]

    @abstractmethod
    def entries(self, folder: str = "") -> Iterator[Entry]:
        """All files under a folder, however deep, in order of name."""

    @abstractmethod
    def names(self, folder: str, after: str = "") -> list[str]:
        """Names of the files directly in a folder, without it, in order; empty if there is no such folder.

        Args:
            after: leave out this name and all that sort before it.
        """

    @abstractmethod
    def remove(self, names: Sequence[str]) -> None:
        """Removes files; those that are gone already are no error."""

    @abstractmethod
    def seal(self, names: Sequence[str]) -> None:
        """Makes sure that files written by others (deltalake) are on disk, and takes away the right to write to them."""

    @abstractmethod
    def lock(self, name: str, doing: str) -> AbstractContextManager[None]:
        """Holds a named lock while the block runs; it becomes free when the process dies, however it dies.

        Raises:
            MechError: another process holds it.
        """

    @abstractmethod
    def make_readable(self, connection: duckdb.DuckDBPyConnection, sizes: dict[str, int]) -> None:
        """Prepares a DuckDB connection for reading files of this root.

        Args:
            sizes: bytes of the files that will be read, by url.
        """


_SENTENCES: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (
        ("No space left on device", "StorageFull", "QuotaExceeded", "XMinioStorageFull"),
        "the disk of {root} is full; what was stored before is whole",
        "free space and run the same command again",
    ),
    (
        ("NoSuchBucket", "bucket does not exist", "Bucket not found", "Invalid bucket name"),
        "store {root}: there is no such bucket",
        "create it, or correct MECH_STORE",
    ),
    (
        ("InvalidAccessKeyId", "SignatureDoesNotMatch", "Unable to locate credentials", "NoCredentialsError", "ExpiredToken"),
        "store {root}: the S3 server refuses the credentials",
        f"set {S3_SETTINGS}",
    ),
    (
        ("AccessDenied", "403 Forbidden", "Access Denied", "status code 403", "Forbidden"),
        "store {root}: the S3 server denies access",
        f"check the bucket's policy, and {S3_SETTINGS}",
    ),
    (
        ("Could not connect to the endpoint", "EndpointConnectionError", "Connection refused", "dns error", "tcp connect error",
         "error sending request"),
        "store {root}: the S3 server does not answer",
        "check AWS_ENDPOINT_URL and the network",
    ),
    (
        ("SlowDown", "ServiceUnavailable", "Service Unavailable", "InternalError", "Internal Server Error"),
        "store {root}: the S3 server fails or is overloaded; what was stored before is whole",
        "wait, and run the same command again",
    ),
)  # fmt: skip


@contextmanager
def readable_storage_errors(root: str) -> Iterator[None]:
    """Turns full disks, missing rights, wrong buckets and credentials, from wherever they come, into a sentence."""
    try:
        yield
    except MechError:
        raise
    except Exception as error:
        if (sentence := storage_sentence(root, error)) is not None:
            raise sentence from error
        raise


def storage_sentence(root: str, error: BaseException) -> MechError | None:
    """The error in words for people; none if it is no storage fault."""
    if not isinstance(error, OSError | DeltaError | duckdb.Error) and "botocore" not in type(error).__module__:
        return None
    text = " ".join(f"{type(e).__name__} {e}" for e in _chain(error))
    if getattr(error, "errno", None) == errno.ENOSPC:
        text += " No space left on device"
    for marks, problem, next_step in _SENTENCES:
        if any(mark in text for mark in marks):
            return MechError(problem.format(root=root), next_step)
    if getattr(error, "errno", None) in (errno.ENOTDIR, errno.EEXIST):
        return MechError(f"store {root} is not a folder", "set MECH_STORE to one")
    denied = getattr(error, "errno", None) in (errno.EACCES, errno.EROFS, errno.EPERM)
    if denied or "Permission denied" in text or "Read-only file system" in text:
        return MechError(f"store {root} cannot be written", "check its permissions, or set MECH_STORE")
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
