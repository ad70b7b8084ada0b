"""`mech zoom`: asks for the states of a window, and executes what makes them and looks at them, in this process."""

import os
from collections.abc import Callable
from pathlib import Path

import dagster as dg

from mech_pipeline.assets.events import add_sink
from mech_pipeline.assets.execute import Executor, close_orphans
from mech_pipeline.assets.partitions import register
from mech_pipeline.definitions import build_definitions
from mech_pipeline.spec.run import RunSpec


def zoom(home: Path, root: str, spec: RunSpec, first: int, last: int, every: int, emit: Callable[[str], None]) -> None:
    """Fills the window's checkpoints and analyses them, as Dagster runs that the UI shows."""
    add_sink(emit)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        close_orphans(instance)
        register(instance, [spec])
        executor = Executor(build_definitions(root, home / "experiments"), instance, os.getpid())
        window = {"first_step": first, "last_step": last, "every": every}
        executor.run_assets(["zoom"], spec.run, {"zoom": {"config": window}})
        executor.step_assets(["mechanism_values", "head_scores"], spec.run, first, last)
