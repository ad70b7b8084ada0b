"""Roots whose names mean something to a library that reads the store: made safe here, or refused, and nowhere else.

DuckDB takes `*`, `?` and `[` for patterns and `key=value` folders for columns; it reads such a folder through a link with a
plain name. deltalake decodes `%`, takes a backslash for a slash, and cannot write where `[`, `]`, `|` or `^` is in a name. In
an S3 address `#`, `?` and `%` are taken for parts of a URL. An endpoint without http:// is taken for something else by each.
"""

import hashlib
import os
import re
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from mech_pipeline.errors import MechError

_NO_FOLDER = re.compile(r"[%\\\x00-\x1f\x7f\ud800-\udfff]")
_NOT_WRITABLE = re.compile(r"[\[\]|^]")
_MEANS_SOMETHING = re.compile(r"[*?\[=]")
_NO_PREFIX = re.compile(r"[^A-Za-z0-9!_.()' /+,;:@&$~-]")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")


def local_root(text: str) -> Path:
    """The absolute folder of a store.

    Raises:
        MechError: its name has a character that the libraries which read and write tables do not take as it is.
    """
    path = Path(text)
    folder = path.resolve() if ".." in path.parts else path.absolute()  # `..` after a link is not the folder above
    if (found := _NO_FOLDER.search(str(folder))) is not None:
        shown = str(folder).encode("utf-8", "backslashreplace").decode()
        raise MechError(
            f"store {shown!r}: the character {found[0]!r} cannot be in the name of a store's folder",
            "rename the folder, or set MECH_STORE to another one",
        )
    return Path("/" + str(folder).lstrip("/"))


def check_writable(root: str) -> None:
    """Some names can be read but not written.

    Raises:
        MechError: this is one.
    """
    if "://" not in root and (found := _NOT_WRITABLE.search(root)) is not None:
        raise MechError(
            f"store {root}: tables cannot be written where the character {found[0]!r} is in a folder's name",
            "rename the folder, or set MECH_STORE to another one; reading it works as it is",
        )


def plain_name(folder: Path) -> str:
    """The folder under a name in which DuckDB sees nothing but a name: its own, or that of a link to it."""
    return str(folder) if _MEANS_SOMETHING.search(str(folder)) is None else _link_to(str(folder), os.getpid())


@cache
def _link_to(folder: str, _process: int) -> str:
    """A link where copies of blobs lie too, so that `warehouse.duckdb` can go on naming it; else one of this process."""
    named = hashlib.sha256(folder.encode()).hexdigest()[:16]
    for place in (cache_folder() / "stores", Path(tempfile.gettempdir()) / f"mech-stores-{os.getuid()}"):
        if _MEANS_SOMETHING.search(str(place)) is not None:
            continue
        with suppress(OSError):
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            if place.stat().st_uid != os.getuid():
                continue
            if not (place / named).is_symlink():
                _make_link(place / named, folder)
            if os.readlink(place / named) == folder:
                return str(place / named)
    raise MechError(
        f"store {folder}: a pattern or key=value in the folder's name needs a link with a plain name, and none can be made",
        "set MECH_CACHE to a folder with a plain name that can be written, or rename the store's folder",
    )


def _make_link(link: Path, folder: str) -> None:
    aside = link.with_name(f"{link.name}.{os.getpid()}")
    with suppress(FileNotFoundError):
        aside.unlink()
    aside.symlink_to(folder)
    aside.replace(link)


def cache_folder() -> Path:
    """Where copies of remote blobs, and links to folders with odd names, lie: MECH_CACHE, or `~/.cache/mech_pipeline`."""
    named = os.environ.get("MECH_CACHE")
    return (Path(named) if named else Path.home() / ".cache" / "mech_pipeline").absolute()


def s3_root(text: str) -> str:
    """`s3://bucket/prefix` with single slashes, and none at the end.

    Raises:
        MechError: it names no bucket, or the prefix has a character that is taken for something else on the way.
    """
    bucket, *parts = text.removeprefix("s3://").split("/")
    parts = [part for part in parts if part]
    if not _BUCKET.fullmatch(bucket):
        raise MechError(f"store root {text} names no bucket", "write s3://bucket/prefix")
    prefix = "/".join(parts)
    found = _NO_PREFIX.search(prefix)
    wrong = repr(found[0]) if found else next((repr(part) for part in parts if part in (".", "..")), None)
    if wrong is not None:
        raise MechError(
            f"store root {text!r}: {wrong} cannot be in the prefix of a store",
            "use letters, digits, and - _ . in MECH_STORE",
        )
    return "/".join([f"s3://{bucket}", *parts])


def s3_endpoint() -> str | None:
    """The S3 server that the environment names; none: Amazon's.

    Raises:
        MechError: it is no address that begins with http:// or https://.
    """
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        if endpoint := os.environ.get(name):
            with suppress(ValueError):
                parts = urlsplit(endpoint)
                _ = parts.port
                if parts.scheme in ("http", "https") and parts.hostname and not parts.query and not parts.fragment:
                    return endpoint
            raise MechError(f"{name} is {endpoint!r}, which is no address", f"write http://{_host(endpoint)}")
    return None


def _host(endpoint: str) -> str:
    """`host:port` of what was meant."""
    return re.sub(r"^.*//", "", endpoint).split("/")[0] or "host:port"
