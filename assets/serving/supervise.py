"""Starts the three processes of Dagster's UI, says where it is, and ends them all in seconds.

What they print goes to .dagster/ui.log. When one of them ends, so do the others: a UI without a daemon would start nothing
and not say so. Runs that they leave open are closed as stopped; what was acknowledged is in the store.
"""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import yaml

from mech_pipeline.assets.history import alone_in, open_history
from mech_pipeline.assets.launcher.execute import announce_stop, close_stopped
from mech_pipeline.assets.launcher.scratch import use_own_scratch
from mech_pipeline.assets.serving.child import SILENT
from mech_pipeline.errors import MechError
from mech_pipeline.project import Project

LOG = Path(".dagster", "ui.log")
_LOADED = "{workspaceOrError {... on Workspace {locationEntries {locationOrLoadError {__typename}}}}}"
_LOCATION = "mech_pipeline.definitions"
_PATIENCE_SECONDS = 300.0
_LOADING_SECONDS = 90.0
"""Until the code server has loaded, the web server shows an error in its place; after that it is one."""
_ENDING_SECONDS = 3.5
"""For children to end by themselves; a program that was asked to end has six in all (`stopping`)."""
_LOOK_SECONDS = 0.3


@dataclass
class Served:
    """Dagster's UI of one project.

    Args:
        told: receives the one line that says where it is.
    """

    project: Project
    host: str
    port: int
    told: Callable[[str], None]
    _children: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """Where a browser on this machine finds it."""
        return f"http://{'127.0.0.1' if self.host == '0.0.0.0' else self.host}:{self.port}"

    def serve(self) -> None:
        """Serves until the program is asked to end.

        Raises:
            MechError: the port is taken, a UI of this project is up already, or one of the processes has ended.
        """
        check_free(self.host, self.port)
        with _only_one(self.project.home):
            close_left_open(self.project.home)
            folder = Path(tempfile.mkdtemp(prefix="ui-", dir=use_own_scratch()))
            with (self.project.home / LOG).open("wb") as log:
                try:
                    self._start_all(folder, log)
                    self._wait()
                    self.told(f"Dagster's UI: {self.address} (Ctrl-C ends it; it writes to {LOG})")
                    while not self._ended():
                        time.sleep(_LOOK_SECONDS)
                finally:
                    self._end()
                    close_left_open(self.project.home)

    def _start_all(self, folder: Path, log: IO[bytes]) -> None:
        code, workspace = str(folder / "code"), folder / "workspace.yaml"
        server = {"socket": code, "location_name": _LOCATION}
        workspace.write_text(yaml.safe_dump({"load_from": [{"grpc_server": server}]}))
        quiet = ("--log-level", "warning")
        self._start(log, "code server", "dagster", "code-server", "start", "-m", _LOCATION, "--socket", code, *quiet)
        place = ("--host", self.host, "--port", str(self.port), "--workspace", str(workspace))
        self._start(log, "web server", "mech_pipeline.assets.serving.web", *place)
        self._start(log, "daemon", "dagster._daemon", "run", "--workspace", str(workspace), *quiet)

    def _start(self, log: IO[bytes], name: str, *arguments: str) -> None:
        self._children[name] = subprocess.Popen(
            [sys.executable, "-m", "mech_pipeline.assets.serving.child", *arguments],
            cwd=self.project.home,
            env=_environment(self.project),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C in the terminal is heard here alone
        )

    def _wait(self) -> None:
        """Until pages show something: what the project has or, after a while, why it cannot be loaded."""
        began = time.monotonic()
        while (shown := _shown(self.address)) is not True:
            waited = time.monotonic() - began
            if shown is False and waited > _LOADING_SECONDS:
                return
            if self._ended() or waited > _PATIENCE_SECONDS:
                raise self._failure(f"Dagster's UI did not start within {_PATIENCE_SECONDS:.0f} s")
            time.sleep(_LOOK_SECONDS)

    def _ended(self) -> bool:
        """Nothing has, or it is an error.

        Raises:
            MechError: one of the processes has ended.
        """
        for name, child in self._children.items():
            if child.poll() is not None:
                raise self._failure(f"the {name} of Dagster's UI has ended")
        return False

    def _failure(self, what: str) -> MechError:
        return MechError(what, f"its last words are in {self.project.home / LOG}")

    def _end(self) -> None:
        """Asks all to end, those that start work first; kills what does not, with all that it has started."""
        deadline = time.monotonic() + _ENDING_SECONDS
        for name in ("daemon", "code server", "web server"):
            if name == "code server":
                self._announce()
            if name in self._children:
                _signal(self._children[name], signal.SIGTERM)
        for child in self._children.values():
            with suppress(subprocess.TimeoutExpired):
                child.wait(max(0.1, deadline - time.monotonic()))
        for child in self._children.values():
            _signal(child, signal.SIGKILL)
            child.wait()

    def _announce(self) -> None:
        """Tells the history that what runs is being stopped; without a word if it cannot be told."""
        with suppress(Exception), open_history(self.project.home) as instance:
            announce_stop(instance)


def check_free(host: str, port: int) -> None:
    """Whether nobody listens there.

    Raises:
        MechError: somebody does, or the host is not one of this machine's.
    """
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        raise MechError(
            f"port {port} is already in use or not to be had on {host}: {error.strerror}",
            "end what uses it (another `make ui`?), or name another: mech ui --port",
        ) from error


@contextmanager
def _only_one(home: Path) -> Iterator[None]:
    """Two daemons on one history would start everything twice.

    Raises:
        MechError: a UI of this project is up.
    """
    (home / LOG.parent).mkdir(exist_ok=True)
    with (home / LOG.parent / "ui.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise MechError(f"the UI of {home} is up already", "use that one, or end it first") from error
        yield


def close_left_open(home: Path) -> None:
    """Marks as stopped what a UI has left open in the project's history; makes the history where there is none."""
    with alone_in(home), open_history(home) as instance:
        close_stopped(instance)


def _environment(project: Project) -> dict[str, str]:
    """Of the processes; the history is the project's, whatever DAGSTER_HOME a shell exports."""
    own = {"DAGSTER_HOME": str(project.home), "MECH_HOME": str(project.home), "MECH_STORE": project.store}
    return {**os.environ, **own, "PYTHONWARNINGS": "ignore", SILENT: "1", "DAGSTER_IS_DEV_CLI": "1"}


def _shown(address: str) -> bool | None:
    """Whether the web server knows what the project has; none: it does not answer yet."""
    asked = json.dumps({"query": _LOADED}).encode()
    request = urllib.request.Request(f"{address}/graphql", asked, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            entries = json.load(answer)["data"]["workspaceOrError"]["locationEntries"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    found = [entry["locationOrLoadError"] for entry in entries]
    return bool(found) and all(each is not None and each["__typename"] == "RepositoryLocation" for each in found)


def _signal(child: subprocess.Popen[bytes], sign: signal.Signals) -> None:
    """To a process and all that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, sign)
