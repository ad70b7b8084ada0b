"""`mech ui`: Dagster's web UI, with the reports beside it."""

from typing import Annotated

import typer

from mech_pipeline.commands.output import note, say
from mech_pipeline.stopping import promise

_OWN = ("127.0.0.1", "localhost")


def ui(
    port: Annotated[int, typer.Option(help="where it listens")] = 3000,
    host: Annotated[str, typer.Option(help="on which address; only this machine reaches the default")] = "127.0.0.1",
) -> None:
    """Show experiments, runs, curves and reports in the web browser; launch and watch from there. Ctrl-C ends it.

    It asks for no password: whoever reaches the address can start and delete runs.
    """
    if host not in _OWN:
        note(f"mech: whoever reaches {host}:{port} can start and delete runs; an SSH tunnel would let in only you")
    promise("the UI has ended; what runs had finished is kept")
    from mech_pipeline.assets.serving.supervise import Served
    from mech_pipeline.project import find_project

    Served(find_project(), host, port, say).serve()
