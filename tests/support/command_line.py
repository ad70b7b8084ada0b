"""`mech` as a person types it: a process in a project folder, and a project in which it has run once."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from filelock import FileLock

from tests.support.once import kept_folder
from tests.support.tiny import write_project

MECH = [sys.executable, "-m", "mech_pipeline.commands.app"]
FINISHED = {"corpus": {"files": "text/*.txt"}, "seeds": [0]}
"""How the experiment of the finished project differs from the tiny one."""


def mech(home: Path, *arguments: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the command line in a project folder."""
    found = subprocess.run(
        [*MECH, *arguments],
        cwd=home,
        capture_output=True,
        text=True,
        timeout=900,
        env={**os.environ, "MECH_STORE": str(home / "store"), "MECH_HOME": str(home), **environment},
    )
    if check:
        assert found.returncode == 0, found.stderr + found.stdout
        assert found.stderr == "", "a good run says nothing on stderr"
    return found


def finished_project() -> Path:
    """A project folder in which `mech run` has run once, for all tests of the session, who must not change it.

    What the command printed is in `output.txt`.
    """
    home = kept_folder() / "finished"
    with FileLock(f"{home}.lock"):
        if not (home / "output.txt").exists():
            shutil.rmtree(home, ignore_errors=True)
            home.mkdir()
            write_project(home, **FINISHED)
            printed = mech(home, "run", "experiments/tiny.yaml").stdout
            (home / "output.txt").write_text(printed)
    return home
