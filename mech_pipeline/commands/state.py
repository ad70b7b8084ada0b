"""`mech state`: the exact state of a run after any number of updates, as a file."""

from pathlib import Path
from typing import Annotated

import typer

from mech_pipeline.commands import completing
from mech_pipeline.commands.output import say
from mech_pipeline.commands.progress import progress_lines


def state(
    run: Annotated[
        str, typer.Argument(help="run id, for example induction.baseline.s0", autocompletion=completing.runs)
    ],
    step: Annotated[int, typer.Argument(help="updates done")],
    folder: Annotated[Path, typer.Option(help="where to write it")] = Path(),
    check: Annotated[
        bool, typer.Option("--check", help="go on to the next checkpoint and compare bit for bit (takes longer)")
    ] = False,
) -> None:
    """Write the state of a run after any update: weights and moments as safetensors, and a .json that says what it is.

    Replayed from the checkpoint before it, bit for bit, in the time that training took for these updates. Nothing of the
    store changes; `mech zoom` keeps states there.
    """
    from mech_pipeline.commands.opening import opened_run
    from mech_pipeline.exchange.state import state_at, write_state
    from mech_pipeline.progress import Progress

    opened = opened_run(run)
    updates = step - max((each for each in opened.checkpoints if each <= step), default=step)
    with progress_lines() as emit:
        report = Progress(emit, f"replay {run}", updates, "updates")
        found, described = state_at(opened, step, check=check, report=report)
    for path in write_state(opened, found, described, folder):
        say(path)
    if updates == 0:
        say(f"step {step} is kept: read, not replayed")
    elif described.checked_at is not None:
        say(f"the replay reaches checkpoint {described.checked_at} with the same bits")
