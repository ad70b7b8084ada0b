"""How workers are started: on Linux from a fork server that has imported everything once, elsewhere afresh."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, SpawnContext

from mech_pipeline.assets.launcher.scratch import use_own_scratch

LAUNCHER = "MECH_LAUNCHER_PID"

_PRELOAD = ["mech_pipeline.assets.launcher.fork_server", "mech_pipeline.definitions"]


def worker_context() -> ForkServerContext | SpawnContext:
    """The multiprocessing context of `mech run`."""
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)
    return context


def warm_up() -> None:
    """Starts the fork server, which imports in the background while the caller imports and plans itself."""
    use_own_scratch()
    worker_context()
    if sys.platform != "linux":
        return
    # For the server only. Dagster announces its beta features on import.
    with _environment(PYTHONWARNINGS="ignore", **{LAUNCHER: str(os.getpid())}):
        signal.pthread_sigmask(
            signal.SIG_BLOCK, {signal.SIGINT}
        )  # Ctrl-C would be a traceback until the server is deaf to it
        try:
            forkserver.ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
