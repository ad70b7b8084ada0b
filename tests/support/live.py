"""`mech ui` for tests: web server, daemon and code server over a project folder, on a free port of 127.0.0.1."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from tests.support.places import ROOT
from tests.support.s3_server import free_port

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
T = TypeVar("T")
SAID = "said.txt"
"""In the project folder: what `mech ui` has printed."""
_PATIENCE = 600  # seconds; reached only if something is broken


@contextmanager
def user_interface(home: Path) -> Iterator[str]:
    """The address of Dagster's UI; all its processes end with the block."""
    shutil.copy(ROOT / "dagster.yaml", home)
    port = free_port()
    environment = {**os.environ, "MECH_HOME": str(home), "MECH_STORE": str(home / "store")}
    environment["MECH_EXPERIMENTS"] = str(home / "experiments")
    with (home / SAID).open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mech_pipeline.commands.app", "ui", "--port", str(port)],
            cwd=home,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(lambda: address in (home / SAID).read_text(), f"{address} is told, as pages show something", process)
        yield address
    finally:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()  # a child that nobody waited for is a warning, and warnings are errors


def wait_for(look: Callable[[], T], what: str, process: subprocess.Popen[bytes] | None = None) -> T:
    """What `look` finds, once that is something."""
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        if found := look():
            return found
        assert process is None or process.poll() is None, f"the UI ended while waiting: {what}"
        time.sleep(0.5)
    raise AssertionError(f"waited {_PATIENCE} s in vain: {what}")


def asked(address: str, query: str) -> dict[str, Any]:
    """What the UI itself asks its server for: the answer to a query in GraphQL."""
    sent = json.dumps({"query": query}).encode()
    request = urllib.request.Request(f"{address}/graphql", sent, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        found = json.load(answer)
    assert "errors" not in found, found["errors"]
    return found["data"]
