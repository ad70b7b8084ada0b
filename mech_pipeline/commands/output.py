"""Where every command prints: one place for lines, tables, bytes and notes, whatever the streams can hold.

Nothing else in `mech_pipeline/commands/` calls `print`, makes a console or touches `sys.stdout`. Text is shown as it is
(`mech_pipeline/plain_text.py`); bytes (CSV, JSON, Parquet) are written as they are, in UTF-8.
"""

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from rich.console import Console, RenderableType

from mech_pipeline.errors import MechError
from mech_pipeline.plain_text import ERRORS, Literal, readable

_WIDTH_OF_FILES = 160  # without a terminal, lines are not cut at 80 characters


class NobodyReads(Exception):
    """Who read the output has gone (`| head`, a closed terminal): there is nothing to say, and nobody to say it to."""


def prepare_streams() -> None:
    """Streams that take every text: before anything is printed, and harmless twice.

    A stream that was closed when the program began (`>&-`) swallows what is written.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8", errors=ERRORS))  # noqa: SIM115, for good
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ERRORS)


def say(text: object = "") -> None:
    """A line of the result, on stdout."""
    with heard("stdout"):
        print(readable(str(text), encoding()), flush=True)


def note(said: object) -> None:
    """A line about the work on stderr, so that stdout holds the result alone."""
    with heard("stderr"):
        print(readable(str(said), sys.stderr.encoding or "utf-8"), file=sys.stderr, flush=True)


def complain(error: object) -> None:
    """What went wrong, as one line on stderr."""
    with suppress(NobodyReads, OSError):
        note("mech: " + " ".join(str(error).split()))


def show(content: RenderableType) -> None:
    """A table (`PlainTable`) or another renderable; text is no markup."""
    with heard("stdout"):
        console().print(Literal(content) if isinstance(content, str) else content)
        sys.stdout.flush()


def write(content: bytes) -> None:
    """Bytes on stdout, and nothing else."""
    stream = getattr(sys.stdout, "buffer", None)
    if stream is None:
        raise MechError("stdout takes no bytes", "name a file: --output FILE")
    with heard("stdout"):
        stream.write(content)
        stream.flush()


def console() -> Console:
    """A console on stdout that takes nothing for markup; wide without a terminal."""
    plain = {"markup": False, "highlight": False, "emoji": False}
    found = Console(**plain)  # type: ignore[arg-type]
    return found if found.is_terminal else Console(width=_WIDTH_OF_FILES, **plain)  # type: ignore[arg-type]


def in_terminal() -> bool:
    """Whether people look at stdout as it is written."""
    return sys.stdout.isatty()


def encoding() -> str:
    """Of stdout."""
    return sys.stdout.encoding or "utf-8"


@contextmanager
def heard(name: str) -> Iterator[None]:
    """Tells a reader that went away from a disk that is full; what could not be written is not tried again at the end.

    Raises:
        NobodyReads: the reader is gone.
        OSError: the stream cannot be written; its file name is the stream's.
    """
    try:
        yield
    except OSError as error:
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), getattr(sys, name).fileno())
        if error.errno in (errno.EPIPE, errno.EIO, errno.ECONNRESET):
            raise NobodyReads from error
        raise OSError(error.errno, error.strerror, name) from error
