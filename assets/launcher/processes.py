"""How workers are started: on Linux from a fork server that has imported everything once, elsewhere afresh."""

import multiprocessing
import os
import sys
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, SpawnContext

_PRELOAD = ["mech_pipeline.definitions", "mech_pipeline.assets.launcher.silent_exit"]


def worker_context() -> ForkServerContext | SpawnContext:
    """The multiprocessing context of `mech run`."""
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)
    return context


def warm_up() -> None:
    """Starts the fork server, which imports in the background while the caller imports and plans itself."""
    worker_context()
    if sys.platform != "linux":
        return
    before = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = "ignore"  # for the server only: Dagster announces its beta features on import
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONWARNINGS"]
        else:
            os.environ["PYTHONWARNINGS"] = before
