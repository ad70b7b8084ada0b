"""Text files as documents: their bytes decoded as they are, so that a byte of the text is a byte of the file.

Line ends are not translated and a byte order mark stays: `content[offset:]` of a file is what an example was trained on.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mech_pipeline.data.documents import Document
from mech_pipeline.data.file_names import unreadable
from mech_pipeline.errors import MechError

_NULS = 4
"""A file of which every so-many-th character is NUL is no text: UTF-16 read as UTF-8, or a binary format."""


@dataclass(frozen=True)
class TextFiles:
    """Text files: names as they are reported, relative to a folder."""

    source: str
    folder: Path
    names: list[str]

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[Document]:
        return (self.read(index) for index in range(len(self.names)))

    def read(self, index: int) -> Document:
        """One file.

        Raises:
            MechError: it cannot be read, or is not UTF-8 text.
        """
        name = self.names[index]
        try:
            text = (self.folder / name).read_bytes().decode()
        except OSError as error:
            raise unreadable(name, error) from error
        except UnicodeDecodeError as error:
            raise _not_text(name, error.reason) from error
        if text.count("\0") * _NULS > len(text):
            raise _not_text(name, "it looks like UTF-16, or like a binary file")
        return Document(self.source, name, text)


def _not_text(name: str, reason: str) -> MechError:
    return MechError(f"corpus file {name} is not UTF-8 text: {reason}", "convert it, or narrow `files`")


def line_numbers(text: str, offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    r"""Lines that byte offsets are on, from 1, as editors count them: a line ends with \n, \r\n or \r.

    >>> line_numbers("a\nb\r\nc\rd", np.array([0, 1, 2, 3, 4, 5, 6, 7])).tolist()
    [1, 1, 2, 2, 2, 3, 3, 4]
    """
    content = np.frombuffer(text.encode(), dtype=np.uint8)
    ends = content == ord("\n")
    if "\r" in text:
        ends[:-1] |= (content[:-1] == ord("\r")) & (content[1:] != ord("\n"))
    return np.searchsorted(np.flatnonzero(ends), offsets, side="left") + 1
