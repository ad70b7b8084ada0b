"""How commands show work that goes on: lines that change in a terminal, plain lines elsewhere."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.live import Live

from mech_pipeline.commands.output import console, heard, say
from mech_pipeline.plain_text import Literal
from mech_pipeline.progress import Emit, Progressed, Said


@contextmanager
def progress_lines() -> Iterator[Emit]:
    """One live line per piece of work in a terminal; plain lines elsewhere."""
    terminal = console()
    if not terminal.is_terminal:
        yield say
        return
    going_on: dict[str, str] = {}
    with Live(console=terminal, refresh_per_second=4) as live:

        def emit(said: Said) -> None:
            with heard("stdout"):
                if isinstance(said, Progressed) and not said.is_finished:
                    going_on[said.label] = str(said)
                else:
                    if isinstance(said, Progressed):
                        going_on.pop(said.label, None)
                    live.console.print(Literal(str(said)))
                live.update(Literal("\n".join(going_on.values())))

        yield emit
