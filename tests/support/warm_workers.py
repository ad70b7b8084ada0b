"""The fork server of `mech run` in a process that has imported everything already: forked from it, not started afresh.

`multiprocessing` starts its fork server as a new Python, which imports for seconds what the process that asks for it has
in memory. Here the same server runs in a child of that process: workers are forked from it with the same arguments.
"""

import os
import socket
import warnings
from multiprocessing import connection, forkserver, resource_tracker
from typing import Any


class WarmForkServer(forkserver.ForkServer):
    """As the original, but for where its process comes from."""

    def ensure_running(self) -> None:
        """Starts the server unless it runs; afresh where this process has threads, which a fork leaves behind half done."""
        if self._forkserver_pid is None and len(os.listdir("/proc/self/task")) > 1:
            super().ensure_running()
            return
        with self._lock:
            resource_tracker.ensure_running()
            if self._forkserver_pid is not None:
                return
            with socket.socket(socket.AF_UNIX) as listener:
                self._forkserver_address = connection.arbitrary_address("AF_UNIX")
                listener.bind(self._forkserver_address)
                listener.listen()
                needed, self._forkserver_alive_fd = os.pipe()
                self._forkserver_pid = os.fork()
                if self._forkserver_pid == 0:
                    os.close(self._forkserver_alive_fd)
                    _serve(listener.detach(), needed, self._preload_modules)
                os.close(needed)


def _serve(listener: int, needed: int, preload: list[str]) -> None:
    """Forks workers until nobody needs them, and never returns."""
    warnings.simplefilter("ignore")  # as the server that `mech run` starts
    try:
        forkserver.main(listener, needed, preload)
    finally:
        os._exit(0)


def use_warm_workers() -> None:
    """In this process, workers are forked from what it has imported."""
    server: Any = WarmForkServer()
    forkserver._forkserver = server
    for name in ("ensure_running", "get_inherited_fds", "connect_to_new_process", "set_forkserver_preload"):
        setattr(forkserver, name, getattr(server, name))
