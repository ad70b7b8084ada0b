"""`mech zoom`: a worker process executes what makes the states of a window and looks at them; the UI shows its runs."""

import os
import pickle
from contextlib import suppress
from multiprocessing.connection import wait

from mech_pipeline.assets.history import alone_in, open_history
from mech_pipeline.assets.launcher.execute import close_orphans
from mech_pipeline.assets.launcher.processes import warm_up, worker_context
from mech_pipeline.assets.launcher.worker import Outcome, Spoken, Task, work
from mech_pipeline.assets.registering import register_zoom
from mech_pipeline.errors import MechError
from mech_pipeline.progress import Emit
from mech_pipeline.project import Project
from mech_pipeline.spec.run import RunSpec


def zoom(project: Project, spec: RunSpec, window: tuple[int, int, int], emit: Emit) -> None:
    """Keeps and analyses the states of a window.

    Args:
        window: first step, last step, updates between states.

    Raises:
        MechError: the replay failed or was not the run's; what was kept before is whole.
    """
    with alone_in(project.home), open_history(project.home) as instance:
        close_orphans(instance)
        register_zoom(instance, spec)
    warm_up()
    ours, theirs = worker_context().Pipe()
    arguments = (theirs, project, str(project.home / "experiments"), os.getpid())
    process = worker_context().Process(target=work, args=arguments, daemon=True)
    process.start()
    theirs.close()
    first, last, every = window
    outcome: object = None
    try:
        ours.send(Task("zoom", spec.run, spec.experiment, "", first, last, every))
        with suppress(EOFError, OSError, pickle.UnpicklingError):
            while not isinstance(outcome, Outcome):
                if ours not in wait([ours, process.sentinel]):
                    break  # it died, and something that it started holds the pipe
                outcome = ours.recv()
                if isinstance(outcome, Spoken):
                    emit(outcome.said)
    finally:
        ours.close()
        if not isinstance(outcome, Outcome):
            process.kill()
        process.join(timeout=3)
        if not isinstance(outcome, Outcome):
            with open_history(project.home) as instance:
                close_orphans(instance)
    if not isinstance(outcome, Outcome):
        raise MechError(f"zoom into {spec.run}: its process died (out of memory?)", "run the same command again")
    if outcome.failure is not None:
        raise outcome.failure
