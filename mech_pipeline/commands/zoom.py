"""`mech zoom`: every state of a window of a trained run, kept and analysed."""

from typing import Annotated

import typer

from mech_pipeline.commands import completing
from mech_pipeline.commands.opening import existing_store
from mech_pipeline.commands.output import say
from mech_pipeline.commands.progress import progress_lines
from mech_pipeline.errors import MechError
from mech_pipeline.stopping import promise


def zoom(
    run: Annotated[
        str, typer.Argument(help="run id, for example induction.baseline.s0", autocompletion=completing.runs)
    ],
    window: Annotated[str, typer.Argument(help="FROM:TO, steps of the run, for example 860:880")],
    every: Annotated[int, typer.Option(help="updates between the states that are kept", min=1)] = 1,
) -> None:
    """Keep and analyse every state of a window of a trained run, replayed from the nearest checkpoint.

    The replay is compared with the next checkpoint of the run and kept only if it is the same bit for bit. A zoom
    changes no result: ledger, formation and report rest on the planned checkpoints.
    """
    from mech_pipeline.mechanisms.chosen import CHOSEN
    from mech_pipeline.pipeline.grid import request_zoom
    from mech_pipeline.pipeline.run_row import stored_spec
    from mech_pipeline.project import find_project
    from mech_pipeline.store.store import Store

    promise("stopped; what was kept is kept, run the same command to continue")
    store, project = Store(existing_store().root), find_project()
    CHOSEN.use(project.mechanisms)
    first, last = _window(window)
    spec = stored_spec(store, run).at(project.home)
    steps = request_zoom(store, spec, first, last, every)
    from mech_pipeline.assets.launcher.zoom import zoom as keep_and_analyse

    with progress_lines() as emit:
        keep_and_analyse(project, spec, (first, last, every), emit)
    say(
        f'{len(steps)} states of {run} kept; look at them with\n  mech sql "select step, mechanism, value from '
        f"mechanism_values where run = '{run}' and step between {first} and {last} order by 2, 1\""
    )


def _window(text: str) -> tuple[int, int]:
    first, _, last = text.partition(":")
    if not (first.isdigit() and last.isdigit()):
        raise MechError(f"window {text!r} is not FROM:TO", "name two steps, for example 860:880")
    return int(first), int(last)
