"""Python processes that begin at once: each is forked from one that has imported what they would import for seconds.

What is run is a process of its own all the same: its folder, environment, streams, exit code and signals are its own.
Tests of how a process starts, or ends by a signal, start a real one.
"""

import atexit
import functools
import json
import os
import runpy
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.places import ROOT
from tests.support.warm_workers import use_warm_workers

_IMPORTED = (
    "mech_pipeline.assets.launcher.execute",
    "mech_pipeline.commands.table",
    "mech_pipeline.definitions",
    "tests.support.tiny",
)


def warm_python(arguments: list[str], folder: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """What `python ARGUMENTS` does: `-m MODULE …` or `SCRIPT …`, without other options; what it printed, whatever its exit code."""
    with tempfile.TemporaryDirectory() as streams:
        out, err = Path(streams, "stdout"), Path(streams, "stderr")
        asked = {"arguments": arguments, "folder": str(folder), "environment": dict(environment)}
        server = _server()
        server.stdin.write(json.dumps(asked | {"stdout": str(out), "stderr": str(err)}) + "\n")
        server.stdin.flush()
        code = int(server.stdout.readline())
        return subprocess.CompletedProcess(arguments, code, out.read_text(), err.read_text())


@functools.cache
def _server() -> Any:
    """The process that forks, one for all tests of this process; it ends with them."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    server = subprocess.Popen([sys.executable, "-m", "tests.support.warm_python"], cwd=ROOT, text=True, **pipes)

    def end() -> None:
        server.communicate()

    atexit.register(end)
    return server


def _serve() -> None:
    with warnings.catch_warnings(action="ignore"):
        for name in _IMPORTED:
            __import__(name)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _become(**json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _become(arguments: list[str], folder: str, environment: dict[str, str], stdout: str, stderr: str) -> None:
    """Goes on as the process that was asked for, and never returns."""
    for number, (path, flags) in enumerate(((os.devnull, os.O_RDONLY), (stdout, _WRITE), (stderr, _WRITE))):
        os.dup2(os.open(path, flags, 0o600), number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    if sys.version_info < (3, 14):  # from then on a fork server is asked otherwise
        use_warm_workers()
    code = 1
    try:
        _run(arguments)
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


_WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC


def _run(arguments: list[str]) -> None:
    module = arguments[0] == "-m"
    sys.argv = arguments[module:]
    if module:
        sys.path[0] = os.getcwd()
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        script = Path(sys.argv[0]).resolve()  # in full, as Python names a script in `__file__`
        sys.path[0] = str(script.parent)
        runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    _serve()
