"""How commands show work that goes on: lines that change in a terminal, plain lines elsewhere."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.text import Text


@contextmanager
def progress_lines() -> Iterator[Callable[[str], None]]:
    """One live line per task in a terminal; plain lines elsewhere."""
    console = Console(stderr=False, highlight=False)
    if not console.is_terminal:
        yield lambda line: print(line, flush=True)
        return
    lines: dict[str, str] = {}
    with Live(console=console, refresh_per_second=4) as live:

        def emit(line: str) -> None:
            label, _, rest = line.partition(": ")
            if "took" in rest or (label not in lines and "/" not in rest):
                lines.pop(label, None)
                live.console.print(line, markup=False)
            else:
                lines[label] = line
            live.update(Text("\n".join(lines.values())))

        yield emit


def note(line: str) -> None:
    """A line about the work on stderr, so that stdout holds the result alone."""
    print(line, file=sys.stderr, flush=True)
