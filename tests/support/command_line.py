"""`mech` as a person types it in a project folder, and a project in which it has run once."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from filelock import FileLock

from tests.support.once import kept_folder
from tests.support.tiny import write_project
from tests.support.warm_python import warm_python

MECH = [sys.executable, "-m", "mech_pipeline.commands.app"]
FINISHED = {"corpus": {"files": "text/*.txt"}, "seeds": [0]}
"""How the experiment of the finished project differs from the tiny one."""


def mech(home: Path, *arguments: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the command line in a project folder, in a process that begins with everything imported."""
    found = warm_python([*MECH[1:], *arguments], home, environment_of(home) | environment)
    if check:
        assert found.returncode == 0, found.stderr + found.stdout
        assert found.stderr == "", "a good run says nothing on stderr"
    return found


def environment_of(home: Path) -> dict[str, str]:
    """The environment of a project whose store lies in its folder."""
    return {**os.environ, "MECH_STORE": str(home / "store"), "MECH_HOME": str(home)}


def finished_project() -> Path:
    """A project folder in which `mech run` has run once, for all tests of the session, who must not change it.

    It is a process from its first import to its end; what it printed is in `output.txt`.
    """
    home = kept_folder() / "finished"
    with FileLock(f"{home}.lock"):
        if not (home / "output.txt").exists():
            shutil.rmtree(home, ignore_errors=True)
            home.mkdir()
            write_project(home, **FINISHED)
            command, streams = [*MECH, "run", "experiments/tiny.yaml"], {"capture_output": True, "text": True}
            found = subprocess.run(command, cwd=home, env=environment_of(home), timeout=900, **streams)
            assert found.returncode == 0, found.stderr + found.stdout
            assert found.stderr == "", "a good run says nothing on stderr"
            (home / "output.txt").write_text(found.stdout)
    return home
