"""`mech zoom`: a worker process executes what makes the states of a window and looks at them; the UI shows its runs."""

import os
from contextlib import suppress

import dagster as dg

from mech_pipeline.assets.launcher.execute import close_orphans
from mech_pipeline.assets.launcher.processes import warm_up, worker_context
from mech_pipeline.assets.launcher.worker import Outcome, Spoken, Task, work
from mech_pipeline.assets.partitions import register
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
    with dg.DagsterInstance.from_config(str(project.home)) as instance:
        close_orphans(instance)
        register(instance, [spec])
    warm_up()
    ours, theirs = worker_context().Pipe()
    arguments = (theirs, project, str(project.home / "experiments"), os.getpid())
    process = worker_context().Process(target=work, args=arguments, daemon=True)
    process.start()
    theirs.close()
    first, last, every = window
    try:
        ours.send(Task("zoom", spec.run, spec.experiment, "", first, last, every))
        outcome = None
        with suppress(EOFError):
            while not isinstance(outcome, Outcome):
                outcome = ours.recv()
                if isinstance(outcome, Spoken):
                    emit(outcome.said)
    except KeyboardInterrupt:
        process.kill()
        raise
    finally:
        ours.close()
        process.join()
    if not isinstance(outcome, Outcome):
        raise MechError(f"zoom into {spec.run}: its process died (out of memory?)", "run the same command again")
    if outcome.failure is not None:
        raise outcome.failure
