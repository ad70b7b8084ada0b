"""A process that ends when the process that started it does, however that one ends."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def end_with_parent(sent: signal.Signals = signal.SIGKILL, parent: int = 0) -> None:
    """Lets the kernel send this process a signal when its parent has died. Only Linux can; elsewhere nothing happens.

    Whoever is killed then leaves no trainer behind.

    Args:
        parent: process id of the parent, so that one that is dead already is noticed; 0: it is not known.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, sent)
        if parent and os.getppid() != parent:
            os.kill(os.getpid(), sent)
