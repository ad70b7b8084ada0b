"""How commands show work that goes on: lines that change in a terminal, plain lines elsewhere."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.text import Text

from mech_pipeline.progress import Emit, Progressed, Said


@contextmanager
def progress_lines() -> Iterator[Emit]:
    """One live line per piece of work in a terminal; plain lines elsewhere."""
    console = Console(stderr=False, highlight=False)
    if not console.is_terminal:
        yield lambda said: print(said, flush=True)
        return
    going_on: dict[str, str] = {}
    with Live(console=console, refresh_per_second=4) as live:

        def emit(said: Said) -> None:
            if isinstance(said, Progressed) and not said.is_finished:
                going_on[said.label] = str(said)
            else:
                if isinstance(said, Progressed):
                    going_on.pop(said.label, None)
                live.console.print(str(said), markup=False)
            live.update(Text("\n".join(going_on.values())))

        yield emit


def note(said: Said) -> None:
    """A line about the work on stderr, so that stdout holds the result alone."""
    print(said, file=sys.stderr, flush=True)
