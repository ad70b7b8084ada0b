"""An S3 bucket: `s3fs` for blobs and for DuckDB's reads, deltalake's own client for tables.

Endpoint, region and credentials come from the usual AWS environment variables. An object appears whole when its
upload ends. DuckDB reads through a file system that can only read, and that is told the sizes of the files: names are
never used twice, so the size in the Delta log is the size, and one request a file is saved.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import duckdb
import s3fs

from mech_pipeline.store.files.interface import Entry, Files, readable_storage_errors
from mech_pipeline.store.files.lease import lease
from mech_pipeline.store.files.roots import s3_endpoint

_LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
_CONNECT_SECONDS, _ATTEMPTS = 5, 3


def open_s3(root: str) -> "S3Files":
    """Files of a bucket; one client for each root and setting of the environment."""
    return _open_s3(root, _environment(), os.getpid())


@lru_cache(maxsize=16)
def _open_s3(root: str, environment: tuple[tuple[str, str], ...], process: int) -> "S3Files":
    return S3Files(root)


def _environment() -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith("AWS_")))


def _client_settings() -> dict[str, Any]:
    endpoint = s3_endpoint()
    config: dict[str, Any] = {"connect_timeout": _CONNECT_SECONDS, "retries": {"max_attempts": _ATTEMPTS}}
    if endpoint:
        config["s3"] = {"addressing_style": "path"}  # most servers but Amazon's have no name for each bucket
    return {
        "endpoint_url": endpoint,
        "use_listings_cache": False,  # another process may have written since
        "config_kwargs": config,
    }


class _ReadOnlyS3(s3fs.S3FileSystem):
    """What DuckDB reads through: refuses to write, and knows the sizes of immutable files."""

    cachable = False

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._sizes: dict[str, int] = {}

    def know(self, sizes: dict[str, int]) -> None:
        """Takes note of the sizes of files that will be read."""
        self._sizes |= {self._strip_protocol(url): size for url, size in sizes.items()}

    async def _info(
        self, path: str, bucket: Any = None, key: Any = None, refresh: bool = False, version_id: Any = None
    ) -> Any:
        name = self._strip_protocol(path)
        if name not in self._sizes:
            return await super()._info(path, bucket, key, refresh=refresh, version_id=version_id)
        size = self._sizes[name]
        # No ETag: with one, s3fs would send If-Match. A constant time is right because names are write-once.
        return {"name": name, "Key": name, "size": size, "Size": size, "type": "file", "StorageClass": "STANDARD",
                "VersionId": None, "LastModified": _LONG_AGO}  # fmt: skip

    def _open(self, path: str, mode: str = "rb", **settings: Any) -> Any:
        if mode != "rb":
            raise PermissionError(f"{path}: the store is read-only for SQL")
        return super()._open(path, mode=mode, **settings)


class S3Files(Files):
    """Files under `s3://bucket/prefix`, written as `roots.s3_root` writes it."""

    parallel = 8

    def __init__(self, root: str) -> None:
        self.root = root
        settings = _client_settings()
        self._fs = s3fs.S3FileSystem(**settings, skip_instance_cache=True)
        self._reader = _ReadOnlyS3(**settings)  # one for all connections: making a client takes 0.2 s
        endpoint = settings["endpoint_url"]
        self.delta_options = {
            "max_retries": str(_ATTEMPTS),
            "retry_timeout": "20s",
            "connect_timeout": f"{_CONNECT_SECONDS}s",
        }
        if endpoint:
            self.delta_options |= {
                "AWS_ENDPOINT_URL": endpoint,
                "AWS_ALLOW_HTTP": str(endpoint.startswith("http://")).lower(),
            }
        if not (os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")):
            self.delta_options["AWS_REGION"] = "us-east-1"

    def read(self, name: str) -> bytes:
        with readable_storage_errors(self.root):
            # One request: with more, a HEAD comes first, and its refusal has no reason in it.
            return bytes(self._fs.cat_file(self.url(name), max_concurrency=1))

    def write(self, name: str, content: bytes) -> None:
        with readable_storage_errors(self.root):
            self._fs.pipe_file(self.url(name), content)

    def create(self, name: str, content: bytes) -> bool:
        """Writes a file only if there is none of that name; false if there is. The server decides who is first."""
        with readable_storage_errors(self.root):
            try:
                self._fs.pipe_file(self.url(name), content, mode="create")
            except (FileExistsError, OSError) as error:
                if (
                    isinstance(error, FileExistsError)
                    or "PreconditionFailed" in str(error)
                    or "pre-condition" in str(error).lower()
                ):
                    return False
                raise
            return True

    def put(self, local: Path, name: str) -> None:
        with readable_storage_errors(self.root):
            self._fs.put_file(str(local), self.url(name))
        local.unlink()

    def info(self, name: str) -> Entry | None:
        with readable_storage_errors(self.root):
            try:
                found = self._fs.info(self.url(name), refresh=True)
            except FileNotFoundError:
                return None
        return None if found["type"] != "file" else self._entry(found)

    def entries(self, folder: str = "") -> Iterator[Entry]:
        with readable_storage_errors(self.root):
            found = self._fs.find(self.url(folder) if folder else self.root, detail=True, refresh=True)
        for name in sorted(found):
            yield self._entry(found[name])

    def names(self, folder: str, after: str = "") -> list[str]:
        bucket, _, prefix = self.url(folder).removeprefix("s3://").partition("/")
        query = {"Bucket": bucket, "Prefix": f"{prefix}/", "Delimiter": "/", "StartAfter": f"{prefix}/{after}"}
        found: list[str] = []
        with readable_storage_errors(self.root):
            while True:
                page = self._fs.call_s3("list_objects_v2", **query)
                found += [entry["Key"].rsplit("/", 1)[1] for entry in page.get("Contents", ())]
                if not page.get("IsTruncated"):
                    return sorted(found)
                query["ContinuationToken"] = page["NextContinuationToken"]

    def remove(self, names: Sequence[str]) -> None:
        if not names:
            return
        with readable_storage_errors(self.root):
            self._fs.rm([self.url(name) for name in names])

    def seal(self, names: Sequence[str]) -> None:
        """Nothing to do: an acknowledged upload is durable, and objects are written once."""

    def lock(self, name: str, doing: str) -> AbstractContextManager[None]:
        return lease(self, f"locks/{name}", doing)

    def make_readable(self, connection: duckdb.DuckDBPyConnection, sizes: dict[str, int]) -> None:
        self._reader.know(sizes)
        connection.register_filesystem(self._reader)

    def _entry(self, found: dict[str, Any]) -> Entry:
        name = found["name"].removeprefix(self.root.removeprefix("s3://") + "/")
        modified = found.get("LastModified")
        return Entry(name, int(found["size"]), modified.timestamp() if modified else 0.0)
