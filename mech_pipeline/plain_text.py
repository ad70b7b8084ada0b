"""Text for a terminal, a file or a pipe, whatever it can hold: nothing in it is taken as markup, nothing ends in an error.

Text in square brackets stays text: what is printed are documents, names and paths, and rich would read `[red]` as a colour.
Control characters are spelled out, so that a document cannot clear the screen. A character that the stream's encoding lacks
is written with the signs that stand for it, or as `\\xe9`.
"""

import codecs
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

ERRORS = "mech_signs"
_SIGNS = {
    **{"→": "->", "×": "x", "±": "+/-", "−": "-", "–": "-", "…": "...", "≥": ">=", "≤": "<=", "·": "*", "≈": "~"},
    **dict(zip("▁▂▃▄▅▆▇█", "_.-~=+*#", strict=True)),  # a curve of `reports/formation/sparkline.py` stays one
    **{"“": '"', "”": '"', "’": "'", "─": "-", "│": "|"},
}
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def _spelled(error: UnicodeError) -> tuple[str, int]:
    """Encoding's error handler: what stands for the characters that an encoding lacks."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_SIGNS.get(sign) or _escaped(sign) for sign in lacking), error.end


def _escaped(sign: str) -> str:
    return sign.encode("ascii", "backslashreplace").decode()


codecs.register_error(ERRORS, _spelled)


def readable(text: str, encoding: str = "utf-8") -> str:
    """The text as a stream of this encoding can show it.

    >>> readable("naïve → [red]\\x1b[2J", "ascii")
    'na\\\\xefve -> [red]\\\\x1b[2J'
    """
    return text.translate(_CONTROLS).encode(encoding, ERRORS).decode(encoding)


class Literal:
    """A text that rich shows as it is, in the signs that the console can show."""

    def __init__(self, text: str, style: str = "") -> None:
        self.text, self.style = text, style

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self._shown(options)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement.get(console, options, self._shown(options))

    def _shown(self, options: ConsoleOptions) -> Text:
        return Text(readable(self.text, options.encoding), self.style, overflow="fold")


class PlainTable(Table):
    """A table whose title, caption, headers and cells are shown as they are, whole: nothing is cut with an ellipsis."""

    def __init__(self, *headers: str, title: str | None = None, caption: str | None = None) -> None:
        super().__init__(*headers)
        self.title = Literal(title, "table.title") if title is not None else None  # type: ignore[assignment]
        self.caption = Literal(caption, "table.caption") if caption is not None else None  # type: ignore[assignment]

    def add_column(self, header: object = "", *arguments: Any, **options: Any) -> None:
        """As `rich.table.Table.add_column`."""
        super().add_column(_literal(header, "table.header"), *arguments, **{"overflow": "fold", **options})

    def add_row(self, *cells: object, **options: Any) -> None:
        """As `rich.table.Table.add_row`; cells are texts."""
        super().add_row(*(_literal(cell) for cell in cells), **options)


def _literal(content: object, style: str = "") -> Any:
    return Literal(content, style) if isinstance(content, str) else content
