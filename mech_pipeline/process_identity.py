"""Which process: its number and when it started, because systems give numbers again."""

import os
import socket
import subprocess
import sys
from pathlib import Path


def identity(process: int | None = None) -> str:
    """`host:number:start` of a process of this machine, by default this one."""
    number = os.getpid() if process is None else process
    return f"{socket.gethostname()}:{number}:{_start(number)}"


def is_gone(who: str) -> bool:
    """Whether a process has ended for sure. Of another machine's nothing is known, so it counts as alive.

    >>> is_gone(identity()), is_gone(f"{identity()}0"), is_gone("elsewhere:1:1")
    (False, True, False)
    """
    host, number, start = who.rsplit(":", 2)
    return host == socket.gethostname() and (not start or _start(int(number)) != start)


def _start(number: int) -> str:
    """When a process started, in the system's own unit; empty: there is none, or one that has ended and is not yet buried."""
    if sys.platform != "linux":
        asked = ["ps", "-o", "lstart=", "-p", str(number)]
        return "".join(subprocess.run(asked, capture_output=True, text=True).stdout.split()).replace(":", "")
    try:
        state, *fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if state in "ZX" else fields[18]
